"""Files that are whole or absent, JSON that is strict, and paths that stay inside their folder."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import secrets
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np

from harness.contract.errors import EnvironmentFailure, UserError
from harness.contract.parse import as_unicode, parse_json

PathLike = str | os.PathLike[str]

PARTIAL_SUFFIX = ".partial"
_PARTIAL = re.compile(r"\.(?P<place>[0-9a-f]{8})-(?P<pid>\d+)-[0-9a-f]{8}\.partial$")
_STALE_AFTER_S = 3600.0
_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NOT_WRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST}
_MAX_NAME_BYTES = 255
_MAX_PATH_CHARACTERS = 1024  # systems take 4,096 bytes in all, with the folder that it lies in


# --- writing ---------------------------------------------------------------------------------------------------------


@contextmanager
def write_atomically(path: PathLike, mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a file that appears under `path` whole, or not at all.

    The bytes go to a temporary file beside it, are flushed to disk, and take the name when the block ends without an
    exception. Missing parent folders are made. A kill leaves the temporary file: see `remove_stale_partials`.

    Args:
        path: the final name; an existing file is replaced.
        mode: "wb", or "w" for UTF-8 text with "\\n" line ends.
    Raises:
        EnvironmentFailure: the disk or the quota is full.
        UserError: the folder cannot be written.
    """
    if mode not in {"wb", "w"}:
        raise ValueError(f"mode is 'wb' or 'w', not {mode!r}")
    path = Path(path)
    # Names of files that are not UTF-8 are text with lone surrogates: written as \udcff, which JSON reads back.
    text = {} if mode == "wb" else {"encoding": "utf-8", "newline": "\n", "errors": "backslashreplace"}
    with explain_disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = partial_path(path)
        try:
            # The exclusive mode honours the umask, unlike mkstemp: another uid in a container must read the result.
            with temporary.open(mode.replace("w", "x"), **text) as handle:  # type: ignore[call-overload]
                yield handle
                handle.flush()
                os.fsync(handle.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        _sync_folder(path.parent)


@contextmanager
def explain_disk_errors(path: PathLike, kept: str = "finished work is kept") -> Iterator[None]:
    """Turn a full disk or a folder without permission, while `path` is being written, into one sentence."""
    try:
        yield
    except OSError as error:
        if error.errno in _DISK_FULL:
            raise EnvironmentFailure(
                f"{path}: the disk or quota is full ({error.strerror}); {kept}. "
                "Free some space and run the same command again."
            ) from error
        if error.errno in _NOT_WRITABLE and _is_about(error, Path(path).parent.absolute()):
            raise UserError(
                f"{error.filename}: cannot be written ({error.strerror}); choose another folder, or make this one "
                "a folder that the user who runs the command may write to."
            ) from error
        raise


def open_log(path: Path, mode: str) -> IO[str]:
    """Open a log ("w" or "a"), one line at a time, that only its user can read: programs print all kinds of things."""

    def private(name: str, flags: int) -> int:
        descriptor = os.open(name, flags, 0o600)
        os.fchmod(descriptor, 0o600)  # it may be there from before
        return descriptor

    with explain_disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        return open(path, mode, buffering=1, encoding="utf-8", errors="backslashreplace", opener=private)


def partial_path(path: Path) -> Path:
    """A temporary name beside `path`, unique to this process: it says where the writer runs and under which pid."""
    token = f".{_place()}-{os.getpid()}-{secrets.token_hex(4)}.partial"
    stem = path.name.encode()[: _MAX_NAME_BYTES - len(token) - 1].decode(errors="ignore")
    return path.with_name(f".{stem}{token}")


def remove_stale_partials(folder: PathLike) -> list[Path]:
    """Delete temporary files in `folder` whose writer is gone, and return them.

    Other processes (ranks of the same job, perhaps on other nodes) may be writing here now, so a file is
    removed only when its writer ran in this pid namespace and is dead, or when it has not been touched for an hour.
    """
    removed = []
    for path in sorted(Path(folder).glob(".*.partial")):
        match = _PARTIAL.search(path.name)
        if match and _is_stale(path, match["place"], int(match["pid"])):
            path.unlink(missing_ok=True)
            removed.append(path)
    return removed


def _is_stale(path: Path, place: str, pid: int) -> bool:
    if place == _place():
        return not _is_alive(pid)
    try:
        return time.time() - path.stat().st_mtime > _STALE_AFTER_S
    except FileNotFoundError:
        return False


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _place() -> str:
    """Where pids are comparable: this host and this pid namespace (containers may share the host's name)."""
    try:
        namespace = os.stat("/proc/self/ns/pid").st_ino  # noqa: PTH116 - a magic link, not a path
    except OSError:
        namespace = 0
    return hashlib.sha256(f"{socket.gethostname()} {namespace}".encode()).hexdigest()[:8]


def _is_about(error: OSError, folder: Path) -> bool:
    """Whether it names `folder`, something in it, or a folder above it in which it could not be made."""
    if error.filename is None:
        return False
    named = Path(os.fsdecode(error.filename)).absolute()
    return named.is_relative_to(folder) or folder.is_relative_to(named)


def is_writable(folder: Path) -> bool:
    """Whether files can be made in `folder`, or `folder` itself, where it is not there yet."""
    there = next(path for path in (folder, *folder.absolute().parents) if os.access(path, os.F_OK))
    return os.access(there, os.W_OK | os.X_OK)


def _sync_folder(folder: Path) -> None:
    """Make a rename durable. Some file systems cannot sync a folder and raise an error; the rename is still atomic."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES}:
            raise
    finally:
        os.close(descriptor)


# --- JSON ------------------------------------------------------------------------------------------------------------


def write_json(path: PathLike, value: Any) -> None:
    """Write `value` as indented strict JSON, atomically. NumPy scalars are fine; NaN is a ValueError.

    Halves of surrogate pairs, as in the name of a file that is not UTF-8, become U+FFFD.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False, default=plain)
    with write_atomically(path, "w") as handle:
        handle.write(as_unicode(text) + "\n")


def write_json_lines(path: PathLike, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write one strict JSON object per line, atomically, and return how many. Rows are consumed one at a time.

    As in `write_json`, halves of surrogate pairs become U+FFFD.
    """
    count = 0
    with write_atomically(path, "w") as handle:
        for row in rows:
            handle.write(as_unicode(json.dumps(row, ensure_ascii=False, allow_nan=False, default=plain)) + "\n")
            count += 1
    return count


def read_json(path: PathLike, *, error: type[UserError] = UserError) -> Any:
    """Read a strict JSON file. A file that is absent, not UTF-8 or not JSON raises `error` naming it."""
    path = Path(path)
    try:
        return parse_json(path.read_bytes())
    except OSError as reason:
        raise error(f"{path}: cannot be read ({_why(reason)}); check the path.") from reason
    except ValueError as reason:
        raise error(f"{path}: is not valid JSON ({reason}); write the file again.") from reason


def read_head(path: PathLike, name: str, version: int, *, error: type[UserError] = UserError) -> dict[str, Any]:
    """Read a file that opens with `format` and `schema_version`, and return its other fields.

    Args:
        path: the file.
        name: the format it must have, such as "sample-set".
        version: the one that this program reads.
        error: what is raised.
    Raises:
        UserError: (or `error`) another kind of file, or another version of it.
    """
    row = read_json(path, error=error)
    if not isinstance(row, dict):
        raise error(f"{path}: holds a {type(row).__name__}, not a JSON object; write the file again.")
    found, found_version = row.pop("format", None), row.pop("schema_version", None)
    if found != name:
        raise error(f"{path}: 'format' is {found!r}, not {name!r}; this is a different kind of file.")
    if type(found_version) is not int or found_version != version:
        raise error(
            f"{path}: schema_version {found_version!r} is not the {version} that this program reads; "
            "use the program version that wrote the file, or write it again with this one."
        )
    return row


def read_json_lines(path: PathLike, *, error: type[UserError] = UserError) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number from 1, object) of a JSON-lines file; a line that is not a JSON object raises `error`."""
    path = Path(path)
    try:
        with path.open("rb") as handle:
            for number, line in enumerate(handle, start=1):
                yield number, _parse_object(line, path, number, error)
    except OSError as reason:
        raise error(f"{path}: cannot be read ({_why(reason)}); check the path.") from reason


def _parse_object(line: bytes, path: Path, number: int, error: type[UserError]) -> dict[str, Any]:
    try:
        row = parse_json(line)
    except ValueError as reason:
        raise error(f"{path}, line {number}: is not valid JSON ({reason}); write the file again.") from reason
    if not isinstance(row, dict):
        raise error(f"{path}, line {number}: holds a {type(row).__name__}, not an object; write the file again.")
    return row


def _why(reason: OSError) -> str:
    return reason.strerror or str(reason)


def plain(value: Any) -> Any:
    """The built-in equivalent of a NumPy scalar, a small array or a path, for `json`'s `default`."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"{type(value).__name__} cannot be written to a JSON file: {value!r}")


def as_read_back(value: Any, what: str) -> Any:
    """`value` as it reads back after being written: tuples become lists, NumPy scalars plain numbers.

    Raises:
        UserError: the value cannot be written as JSON; the message names it `what`.
    """
    try:
        return json.loads(as_unicode(json.dumps(value, ensure_ascii=False, allow_nan=False, default=plain)))
    except (TypeError, ValueError) as reason:
        raise UserError(f"{what}: cannot be written as JSON ({reason}); use plain, finite values.") from reason


def finite(value: Any) -> Any:
    """`value` with every NaN and infinity, at any depth, replaced by None: JSON cannot express them."""
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


# --- paths -----------------------------------------------------------------------------------------------------------


def relative_path_problem(relative: str) -> str | None:
    """Say why `relative` is not a plain relative POSIX path (no "..", no backslash, no drive); None when it is."""
    if not relative or "\0" in relative or any(ord(letter) < 32 or ord(letter) == 127 for letter in relative):
        return "is empty or has control characters"
    if "\\" in relative:
        return "has a backslash; write '/' between folders"
    if relative.startswith("/") or re.match(r"[A-Za-z]:", relative):
        return "is absolute; make it relative to the folder"
    parts = relative.split("/")
    if any(part in {"", ".", ".."} for part in parts):
        return "has an empty, '.' or '..' part"
    try:
        longest = max(len(part.encode()) for part in parts)
    except UnicodeEncodeError:
        return "is not valid Unicode"
    if len(relative) > _MAX_PATH_CHARACTERS:
        return f"is longer than {_MAX_PATH_CHARACTERS:,} characters"
    return f"has a part longer than {_MAX_NAME_BYTES} bytes" if longest > _MAX_NAME_BYTES else None


def safe_join(root: PathLike, relative: str, *, error: type[UserError] = UserError) -> Path:
    """Join `relative` to `root`, refusing anything that leads out of it: absolute, "..", or through a symbolic link.

    Raises:
        UserError: (or `error`) naming the path and what is wrong with it.
    """
    root = Path(root)
    problem = relative_path_problem(relative)
    if problem:
        raise error(f"{root}: the path {relative!r} {problem}.")
    joined = root.joinpath(*PurePosixPath(relative).parts)
    if not joined.resolve().is_relative_to(root.resolve()):
        raise error(
            f"{joined}: a symbolic link leads out of {root}; replace the link by the file it points to (cp -L)."
        )
    return joined
