"""Lists files that somebody else made: the one walker of digests, readers and training.

Links are followed, as `cp -rL` copies them, so that a folder of links and a true copy of it are the same; a link to a
folder that it lies in is left out. Hidden names and what operating systems leave behind are never data. What cannot be
read in the end is refused by name: nobody drops an image silently.
"""

from __future__ import annotations

import errno
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.contract.errors import EnvironmentFailure, UserError
from harness.contract.files import PathLike

IMAGE_SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm",
)  # fmt: skip
"""Suffixes, in lower case, of the images that every reader takes: samples, references, training, reconstruction."""

_OTHER_SUFFIXES = re.compile(
    r"\.(gif|apng|avifs?|hei[cf]|jxl|jp2|j2k|jpx|tga|exr|hdr|psd|svg|ico|dds|pcx|qoi|xcf|p[bnf]m|eps|dng|cr[23]|nef|arw)"
)
_NO_IMAGES = frozenset([".txt", ".json", ".jsonl", ".csv", ".npz", ".npy", ".tar", ".parquet", ".pt", ".safetensors"])
"""Suffixes that lie beside images by the million; such files are not opened to see whether they are images."""
_LITTER = frozenset(
    {
        "__macosx",
        "thumbs.db",
        "ehthumbs.db",
        "desktop.ini",
        "icon\r",
        "$recycle.bin",
        "system volume information",
        "lost+found",
        "@eadir",
    }
)
"""In lower case. What macOS adds elsewhere (.DS_Store, ._name) is hidden."""
_MOST_WAYS = 3_000
"""Folders that link to each other crosswise are reached in ever more ways: at some point it is a mistake."""


def is_data(relative: str) -> bool:
    """Whether a relative path is data: no part of it is hidden (begins with a dot) or litter of an operating system."""
    return not any(
        (part.startswith(".") and part not in (".", "..")) or part.lower() in _LITTER for part in relative.split("/")
    )


def is_image_name(name: str) -> bool:
    """Whether a name has the suffix of an image that is taken."""
    return name.lower().endswith(IMAGE_SUFFIXES)


def walk(root: PathLike, *, error: type[UserError] | None = UserError) -> Iterator[str]:
    """Yield every data file below `root` as a path relative to it, with "/", sorted by the parts of the path.

    Args:
        root: a folder, or a link to one.
        error: what is raised for a link to nothing, and for a pipe, a socket or a device; None leaves both out.
    Raises:
        UserError: (or `error`) as said, or `root` is not a folder.
        EnvironmentFailure: a folder cannot be read.
    """
    top = os.fspath(root)
    if not Path(top).is_dir():
        raise (error or UserError)(f"{top}: is not a folder; give the folder that holds the files.")
    inside = [_identity(top)]
    open_folders = [_entries(top, "")]
    ways = Counter(inside)
    while open_folders:
        entry = next(open_folders[-1], None)
        if entry is None:
            open_folders.pop()
            inside.pop()
        elif entry.kind == "file":
            yield entry.relative
        elif entry.kind == "folder":
            path = f"{top}/{entry.relative}"
            identity = _identity(path)
            if identity not in inside:
                ways[identity] += 1
                if ways[identity] > _MOST_WAYS:
                    raise (error or UserError)(f"{path}: is reached in endless ways through links; remove the links.")
                inside.append(identity)
                open_folders.append(_entries(path, f"{entry.relative}/"))
        elif error is not None:
            entry.refuse(top, error)


def subfolders(root: PathLike, *, error: type[UserError] | None = UserError) -> list[str]:
    """The names of the data folders directly in `root`, sorted; links followed, except one to `root` itself."""
    top = os.fspath(root)
    found = []
    for entry in _entries(top, ""):
        if entry.kind == "folder" and _identity(f"{top}/{entry.relative}") != _identity(top):
            found.append(entry.relative)
        elif error is not None:
            entry.refuse(top, error)
    return found


def files_in(root: PathLike, suffix: str, *, error: type[UserError] | None = UserError) -> list[Path]:
    """The data files directly in `root` whose names end in `suffix`, sorted by name; links followed."""
    top, found = os.fspath(root), []
    for entry in _entries(top, ""):
        if entry.relative.endswith(suffix):
            if entry.kind == "file":
                found.append(Path(top) / entry.relative)
            elif error is not None:
                entry.refuse(top, error)
    return found


# --- images ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ImageFiles:
    """The images of a folder, by relative path in the order of `walk`."""

    taken: list[str]
    others: list[str]
    """Images, by suffix or by content, of kinds that nobody here reads."""

    def others_in_words(self) -> str:
        """Such as "3 images of other kinds (the first is a/x.gif)"."""
        plural = "s of other kinds" if len(self.others) > 1 else " of another kind"
        return f"{len(self.others)} image{plural} (the first is {self.others[0]})"

    def refuse_others(self, root: PathLike, error: type[UserError]) -> None:
        """Raise `error` where there are others: leaving them out would change what is measured."""
        if self.others:
            raise error(
                f"{os.fspath(root)}: holds {self.others_in_words()}, which cannot be taken; convert them to PNG (with "
                "the suffix .png), or remove them."
            )


def find_images(root: PathLike, *, error: type[UserError] | None = UserError) -> ImageFiles:
    """The images below `root`; see `walk` for arguments and errors."""
    taken, others = [], []
    for relative in walk(root, error=error):
        if is_image_name(relative):
            taken.append(relative)
        elif _is_other_image(root, relative):
            others.append(relative)
    return ImageFiles(taken, others)


def _is_other_image(root: PathLike, relative: str) -> bool:
    suffix = os.path.splitext(relative)[1].lower()  # noqa: PTH122 - called a million times
    if _OTHER_SUFFIXES.fullmatch(suffix):
        return True
    return suffix not in _NO_IMAGES and image_kind(f"{os.fspath(root)}/{relative}") != ""


def image_kind(path: PathLike) -> str:
    """The kind of image that a file is by its first bytes, such as "GIF"; "" where it is none, or cannot be read."""
    try:
        with Path(path).open("rb") as stream:
            return kind_of_bytes(stream.read(16))
    except OSError:
        return ""


def kind_of_bytes(start: bytes) -> str:
    """The kind of image that begins with these (at least 16) bytes; "" where it is none that is known."""
    if start[:4] == b"RIFF":
        return "WebP" if start[8:12] == b"WEBP" else ""
    if start[4:8] == b"ftyp":
        return _FTYP.get(start[8:12], "")
    if start[:2] == b"BM":
        return "BMP" if start[6:10] == bytes(4) else ""  # two letters alone would be any text
    return next((kind for magic, kind in _MAGIC.items() if start.startswith(magic)), "")


_MAGIC = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"P5\n": "PGM",
    b"P6\n": "PPM",
    b"GIF8": "GIF",
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"8BPS": "Photoshop file",
    b"v/1\x01": "OpenEXR",
    b"qoif": "QOI",
}
_FTYP = {b"avif": "AVIF", b"avis": "AVIF", b"heic": "HEIC", b"heix": "HEIC", b"mif1": "HEIF", b"msf1": "HEIF"}


# --- reading folders -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Entry:
    relative: str
    kind: str
    """"file", "folder", "dangling" (a link to nothing or to itself), or "special" (a FIFO, a socket, a device)."""

    def refuse(self, top: str, error: type[UserError]) -> None:
        """Raise for what may be data and cannot be read."""
        if self.kind == "dangling":
            raise error(
                f"{top}/{self.relative}: is a link to something that is not there; restore what it points to, or "
                "remove the link."
            )
        if self.kind == "special":
            raise error(
                f"{top}/{self.relative}: is not a file that can be read to its end, but a pipe, a socket or a device; "
                "remove it."
            )


def _entries(folder: str, prefix: str) -> Iterator[_Entry]:
    """The data entries of a folder, sorted by name."""
    try:
        with os.scandir(folder) as found:
            kinds = sorted((entry.name, _kind(entry)) for entry in found if is_data(entry.name))
    except OSError as reason:
        raise EnvironmentFailure(
            f"{reason.filename or folder}: cannot be read ({reason.strerror}); check its permissions and the disk."
        ) from reason
    return (_Entry(prefix + name, kind) for name, kind in kinds)


def _kind(entry: os.DirEntry[str]) -> str:
    try:
        if entry.is_file():
            return "file"
        if entry.is_dir():
            return "folder"
        entry.stat()
    except OSError as reason:
        if reason.errno in (errno.ENOENT, errno.ELOOP, errno.ENOTDIR):
            return "dangling"
        raise
    return "special"


def _identity(folder: str) -> tuple[int, int]:
    """What a folder is, whatever it is reached through."""
    try:
        found = os.stat(folder)  # noqa: PTH116 - called once per folder of a large tree
    except OSError as reason:
        raise EnvironmentFailure(
            f"{folder}: cannot be read ({reason.strerror}); check its permissions and the disk."
        ) from reason
    return found.st_dev, found.st_ino
