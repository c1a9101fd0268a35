"""NPZ archives as streams: written and read a batch at a time, in constant memory, with strict headers.

`numpy.savez` and `numpy.load` hold a whole member in memory and trust what its header says. Here the header of a
member is compared with the size the archive gives it before a byte of data is read, object arrays (pickles) are never
opened, and a batch is all that is ever held. A member of more than 256 MiB that unpacks to
200 times its size is refused.
"""

from __future__ import annotations

import errno
import io
import math
import struct
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, cast

import numpy as np

from harness.contract.errors import BadSamples, EnvironmentFailure, UserError
from harness.contract.files import PathLike, write_atomically
from harness.contract.walk import kind_of_bytes

_MAX_HEADER_BYTES = 1 << 16
# Version 3 has the layout of version 2; its text is UTF-8 instead of Latin-1, which only field names make use of, and
# arrays with fields are refused.
_HEADER_READERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
    (3, 0): np.lib.format.read_array_header_2_0,
}
_CHUNK_BYTES = 1 << 20
_EPOCH = (1980, 1, 1, 0, 0, 0)  # a fixed date: equal arrays give equal archives
_LOCAL_HEADER = struct.Struct("<4s5H3I2H")
_SMALL_BYTES = 256 << 20
_MOST_COMPRESSED = 200
"""A member of more than _SMALL_BYTES may unpack to this many times its size in the archive; zeros reach 1,000 times."""
_MOST_EMPTY_ROWS = 1 << 24


# --- writing ---------------------------------------------------------------------------------------------------------


class NpzStreamWriter(AbstractContextManager["NpzStreamWriter"]):
    """Writes one large array of an NPZ archive row by row, uncompressed, and the file appears only when complete.

        with NpzStreamWriter(path, count=50_000, shape_tail=(256, 256, 3), extra={"labels": labels}) as writer:
            for images_u8 in batches:
                writer.append(images_u8)

    Args:
        path: the archive; replaced atomically when the block ends without an exception.
        count: rows that will be appended, exactly.
        shape_tail: shape of one row.
        dtype: of the large array.
        name: key of the large array.
        extra: small arrays, written whole beside it.
    """

    def __init__(
        self,
        path: PathLike,
        *,
        count: int,
        shape_tail: Sequence[int],
        dtype: Any = np.uint8,
        name: str = "arr_0",
        extra: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        self.path = Path(path)
        self.shape = (count, *shape_tail)
        self.dtype = np.dtype(dtype)
        self.written = 0
        self._name = name
        self._extra = {key: np.ascontiguousarray(array) for key, array in (extra or {}).items()}
        if name in self._extra or any(
            array.dtype.hasobject for array in (np.empty(0, self.dtype), *self._extra.values())
        ):
            raise ValueError("the names in an archive are distinct, and its arrays hold no Python objects")
        self._stack = ExitStack()

    def __enter__(self) -> NpzStreamWriter:
        try:
            handle = self._stack.enter_context(write_atomically(self.path))
            self._archive = self._stack.enter_context(zipfile.ZipFile(handle, "w", zipfile.ZIP_STORED))
            for key, array in self._extra.items():
                with self._open_member(key, array.dtype, array.shape) as member:
                    member.write(_bytes(array) if array.size else b"")
            self._member = self._stack.enter_context(self._open_member(self._name, self.dtype, self.shape))
        except BaseException as error:
            self._stack.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def append(self, rows: np.ndarray) -> None:
        """Append rows, (n, *shape_tail) of the array's dtype; nothing is cast or reshaped.

        Raises:
            ValueError: another shape or dtype, or more rows than were announced.
        """
        if rows.dtype != self.dtype or rows.shape[1:] != self.shape[1:]:
            raise ValueError(
                f"{self.path.name} takes rows {self.shape[1:]} {self.dtype}, not {rows.shape} {rows.dtype}"
            )
        if self.written + len(rows) > self.shape[0]:
            raise ValueError(f"{self.path.name} was announced with {self.shape[0]} rows; more were appended")
        if rows.size:
            self._member.write(_bytes(np.ascontiguousarray(rows)))
        self.written += len(rows)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None and self.written != self.shape[0]:
            error = ValueError(
                f"{self.path.name} was announced with {self.shape[0]} rows; {self.written} were appended"
            )
            self._stack.__exit__(ValueError, error, None)
            raise error
        self._stack.__exit__(kind, error, trace)

    def _open_member(self, key: str, dtype: np.dtype, shape: tuple[int, ...]) -> IO[bytes]:
        member = self._archive.open(zipfile.ZipInfo(f"{key}.npy", _EPOCH), "w", force_zip64=True)
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(member, header)
        return member


def _bytes(array: np.ndarray) -> memoryview:
    """The bytes of a contiguous array, without a copy."""
    return array.reshape(-1).view(np.uint8).data


# --- reading ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class NpzMember:
    """One array inside an open archive, header checked, data unread."""

    path: Path
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    data_offset: int | None
    """Where the data begin in the file, for a member that is not compressed; None for one that is."""
    _stream: IO[bytes]
    _error: type[UserError]

    def batches(self, size: int) -> Iterator[np.ndarray]:
        """Yield the rows in order, (n, *shape[1:]) with n = size except for the last; usable once.

        The archive's checksum is verified when the last row has been read.
        """
        for start in range(0, self.shape[0], size):
            rows = np.empty((min(size, self.shape[0] - start), *self.shape[1:]), self.dtype)
            if rows.size:
                self._fill(_bytes(rows))
            yield rows
        with _explained(self.path, self._error):
            if self._stream.read(1):
                raise zipfile.BadZipFile("data after the end of the array")

    def read(self) -> np.ndarray:
        """The whole array; for small ones, such as labels."""
        if self.shape and self.shape[0]:
            (rows,) = self.batches(self.shape[0])
            return rows
        array = np.empty(self.shape, self.dtype)
        if array.size:
            self._fill(_bytes(array))
        return array

    def _fill(self, target: memoryview) -> None:
        with _explained(self.path, self._error):
            done = 0
            while done < len(target):
                chunk = self._stream.read(min(_CHUNK_BYTES, len(target) - done))
                if not chunk:
                    raise EOFError(f"{self.name} ends {len(target) - done} bytes early")
                target[done : done + len(chunk)] = chunk
                done += len(chunk)


def npz_names(path: PathLike, *, error: type[UserError] = BadSamples) -> list[str]:
    """The names of the arrays in an archive, e.g. ["arr_0", "labels"]."""
    path = Path(path)
    with _explained(path, error), _open(path) as archive:
        return [name[: -len(".npy")] for name in archive.namelist() if name.endswith(".npy")]


@contextmanager
def open_npz_member(path: PathLike, name: str = "arr_0", *, error: type[UserError] = BadSamples) -> Iterator[NpzMember]:
    """Open one array of a possibly compressed archive for streaming.

    The header is checked against the size of the member, so an array that claims more than the file holds is refused
    before anything is allocated for it.

    Args:
        path: the archive.
        name: key of the array.
        error: what to raise; MissingAsset suits an archive that is an asset.
    Raises:
        BadSamples: (or `error`) not a zip, cut short, no such array, object array, Fortran order, or a header that
            does not match the data.
    """
    path = Path(path)
    with ExitStack() as stack:
        with _explained(path, error):
            archive = stack.enter_context(_open(path))
            info = _find(archive, name, path, error)
            shape, dtype, header_bytes = _read_header(archive, info, path, error)
            stream = stack.enter_context(archive.open(info))
            _read_exactly(stream, header_bytes)
            offset = _data_offset(path, info, header_bytes)
        yield NpzMember(
            path=path, name=name, shape=shape, dtype=dtype, data_offset=offset, _stream=stream, _error=error
        )


def read_npz_array(path: PathLike, name: str, *, error: type[UserError] = BadSamples) -> np.ndarray:
    """Read one whole array of an archive; for small ones."""
    with open_npz_member(path, name, error=error) as member:
        return member.read()


def _find(archive: zipfile.ZipFile, name: str, path: Path, error: type[UserError]) -> zipfile.ZipInfo:
    found = [info for info in archive.infolist() if info.filename == f"{name}.npy"]
    if not found:
        names = ", ".join(archive.namelist()[:8]) or "nothing"
        raise error(f"{path}: has no array {name!r} (it holds {names}); save it as np.savez(path, {name}=array).")
    if len(found) > 1:
        raise error(f"{path}: holds {name!r} twice; write the archive again.")
    (info,) = found
    if info.flag_bits & 1:
        raise error(f"{path}: {name!r} is encrypted; write the archive without a password.")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise error(f"{path}: {name!r} is compressed in a way NumPy does not write; save it with np.savez.")
    packed = min(info.compress_size, path.stat().st_size)  # the archive says the first, and may lie
    if info.file_size > max(_SMALL_BYTES, _MOST_COMPRESSED * packed):
        raise error(
            f"{path}: {name!r} would unpack from {packed:,} to {info.file_size:,} bytes, more than {_MOST_COMPRESSED} "
            "times as many; save it with np.savez, which does not compress."
        )
    return info


def _read_header(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path, error: type[UserError]
) -> tuple[tuple[int, ...], np.dtype, int]:
    """Shape, dtype, and bytes of the .npy header of a member, by NumPy's own reader.

    It gets no more than the header: it would read, and unpack, whatever length the header claims to have. The data stay
    unread, since damage there is for whoever reads them to find.
    """
    where = f"{path}: {info.filename}"
    with archive.open(info) as member:
        start = member.read(10)  # magic, version, and the length of a header of version 1 or half of a later one's
        if start[6:7] > b"\x01":
            start += member.read(2)
        length = int.from_bytes(start[8:], "little")
        head = io.BytesIO(start + member.read(min(length, _MAX_HEADER_BYTES)))
    try:
        version = np.lib.format.read_magic(head)
        if version not in _HEADER_READERS:
            raise ValueError(f"version {version} of NumPy's format is not known")
        shape, fortran_order, dtype = _HEADER_READERS[version](head, max_header_size=_MAX_HEADER_BYTES)
    except Exception as reason:  # NumPy raises what its parser happens to raise
        raise error(f"{where} has an unreadable header ({reason}); save it with np.savez.") from reason
    if dtype.hasobject:
        raise error(f"{where} holds Python objects (a pickle), which are never loaded; save a plain uint8 array.")
    if dtype.names is not None or dtype.subdtype is not None:
        raise error(f"{where} is a structured array; save a plain array.")
    if not all(type(size) is int and size >= 0 for size in shape):
        raise error(f"{where} has the invalid shape {shape!r}; save it with np.savez.")
    if fortran_order and len(shape) > 1:
        raise error(f"{where} is in Fortran order; save np.ascontiguousarray(array).")
    claimed, held = math.prod(shape) * dtype.itemsize, info.file_size - head.tell()
    # An array without a byte may claim any number of rows, each of any size.
    room = math.prod(max(size, 1) for size in shape) * dtype.itemsize
    if claimed == 0 and (dtype.itemsize == 0 or max(shape, default=0) > _MOST_EMPTY_ROWS or room >= 1 << 62):
        raise error(f"{where} claims {shape} {dtype}, which holds nothing; save it with np.savez.")
    if claimed != held:
        raise error(
            f"{where} claims {shape} {dtype}, which is {claimed} bytes, but holds {held}; "
            "the file is damaged or cut short, write it again."
        )
    return shape, dtype, head.tell()


def _data_offset(path: Path, info: zipfile.ZipInfo, header_bytes: int) -> int | None:
    if info.compress_type != zipfile.ZIP_STORED:
        return None
    with path.open("rb") as handle:
        handle.seek(info.header_offset)
        *_, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(_read_exactly(handle, _LOCAL_HEADER.size))
    offset = info.header_offset + _LOCAL_HEADER.size + name_bytes + extra_bytes + header_bytes
    return cast(int, offset)


def _read_exactly(stream: IO[bytes], count: int) -> bytes:
    data = stream.read(count)
    if len(data) != count:
        raise EOFError("the file ends inside a header")
    return data


def _open(path: Path) -> zipfile.ZipFile:
    if path.exists() and not path.is_file() and not path.is_dir():
        raise zipfile.BadZipFile("a pipe, a socket or a device")  # which would not end, or not begin
    return zipfile.ZipFile(path)


def _other_kind(path: Path) -> tuple[str, str]:
    """What a file is that is no zip archive, and what to do; ("", "") where it is nothing that is known."""
    if not path.is_file():
        return "it is a pipe, a socket or a device", "save it in a file first"
    with path.open("rb") as stream:
        start = stream.read(512)
    if not start:
        return "it is empty", "copy or write it again"
    if image := kind_of_bytes(start):
        return f"it is a {image} image", "give the folder of the images, or copy or write it again"
    if start[257:262] == b"ustar":
        return "it is a tar archive", "unpack it and give the folder of the images, or save the array with np.savez"
    return next((what for magic, what in _OTHERS.items() if start.startswith(magic)), ("", ""))


_SAVE = "save the array with np.savez"
_OTHERS = {
    b"\x93NUMPY": ("it is a single .npy array", "save it as np.savez(path, arr_0=np.load(file))"),
    **{b"\x80%c" % protocol: ("it is a pickle, which is never loaded", _SAVE) for protocol in (2, 3, 4, 5)},
    b"\x1f\x8b": ("it is a gzip file", _SAVE),
    b"\x28\xb5\x2f\xfd": ("it is a zstd file", _SAVE),
    b"\x89HDF": ("it is an HDF5 file", _SAVE),
    b"PAR1": ("it is a parquet file", _SAVE),
}


@contextmanager
def _explained(path: Path, error: type[UserError]) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError as reason:
        raise error(f"{path}: is missing; check the path.") from reason
    except IsADirectoryError as reason:
        raise error(f"{path}: is a folder, not an NPZ archive; give the path of the .npz file.") from reason
    except Exception as reason:  # `zipfile` raises whatever the damaged byte happens to cause
        # A damaged offset makes the reader seek to an impossible position, which is EINVAL. Other system errors are
        # not the file's fault: a caller that replaces damaged files must not replace this one.
        if isinstance(reason, OSError) and reason.errno not in (None, errno.EINVAL):
            raise EnvironmentFailure(
                f"{path}: cannot be read ({reason.strerror}); check its permissions and the disk."
            ) from reason
        what, fix = _other_kind(path) if isinstance(reason, zipfile.BadZipFile) else ("", "")
        fix = fix or "it is damaged or was cut short, copy or write it again"
        raise error(f"{path}: is not a whole NPZ archive ({what or reason}); {fix}.") from reason
