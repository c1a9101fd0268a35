"""MNIST's file format (IDX): Fashion-MNIST, EMNIST, KMNIST and MNIST itself, plain or gzip."""

from __future__ import annotations

import fnmatch
import gzip
import math
import zlib
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt
from PIL import Image

from gear.data.base import Sample
from gear.data.images import training_image
from harness.contract.errors import UserError
from harness.contract.walk import files_in

_UNSIGNED_BYTES = 8
MAX_BYTES = 4 << 30
"""A larger data set is refused: it is held in memory. Fashion-MNIST has 47 MB."""
_SMALL_BYTES = 256 << 20
_MOST_COMPRESSED = 200
"""A file that unpacks to more than _SMALL_BYTES and to so many times its size is refused."""
_CHUNK_BYTES = 1 << 20


class IdxSource:
    """`*images-idx3-ubyte*` with the `*labels-idx1-ubyte*` beside it, greyscale, as RGB of the training size.

    Training reads the files that start with `train`, validation those that start with `t10k` or `test`.
    """

    def __init__(self, root: Path, image_size: int, *, train: bool = True, random_hflip: bool = True) -> None:
        prefixes = ("train",) if train else ("t10k", "test")
        self._images_u8 = read_idx(_find(root, prefixes, "images-idx3-ubyte"), ndim=3)
        labels_path = _find(root, prefixes, "labels-idx1-ubyte")
        self.labels = read_idx(labels_path, ndim=1).astype(np.int64)
        if len(self.labels) != len(self._images_u8) or not len(self.labels):
            raise UserError(
                f"{labels_path} has {len(self.labels)} labels for {len(self._images_u8)} images; download both again."
            )
        self.num_classes = int(self.labels.max()) + 1
        self.image_size, self.train, self.random_hflip = image_size, train, train and random_hflip

    def __len__(self) -> int:
        return len(self.labels)

    def item(self, index: int, rng: np.random.Generator) -> Sample:
        image = Image.fromarray(self._images_u8[index]).convert("RGB")
        pixels = training_image(
            image, self.image_size, rng, crop="random" if self.train else "center", random_hflip=self.random_hflip
        )
        return Sample(pixels, int(self.labels[index]))


def idx_files(root: Path) -> list[Path]:
    """The files of a folder that are named like IDX."""
    return _files(root, "*idx[13]-ubyte*")


def read_idx(path: Path, *, ndim: int) -> npt.NDArray[np.uint8]:
    """The array of unsigned bytes in an IDX file with `ndim` axes; raises UserError for a damaged or another file."""
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as stream:
            header = stream.read(4 + 4 * ndim)
            if header[:4] != bytes([0, 0, _UNSIGNED_BYTES, ndim]) or len(header) < 4 + 4 * ndim:
                raise UserError(
                    f"{path} is not an IDX file of unsigned bytes with {ndim} axes; check that it is the right file."
                )
            shape = tuple(int(side) for side in np.frombuffer(header[4:], dtype=">u4"))
            expected = math.prod(shape)
            if expected > min(MAX_BYTES, max(_SMALL_BYTES, _MOST_COMPRESSED * path.stat().st_size)):
                raise UserError(f"{path} says that it holds {expected:,} bytes, which cannot be; download it again.")
            content = _read_up_to(stream, expected + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read ({error}); download it again.") from None
    if len(content) != expected:
        found = "more than the" if len(content) > expected else f"{len(content)} of"
        raise UserError(f"{path} holds {found} {expected} bytes; download it again.")
    return np.frombuffer(content, dtype=np.uint8).reshape(shape)


def _read_up_to(stream: IO[bytes] | gzip.GzipFile, count: int) -> bytearray:
    """At most `count` bytes, and no more memory than the file fills, whatever its header asks for."""
    content = bytearray()
    while len(content) < count and (chunk := stream.read(min(_CHUNK_BYTES, count - len(content)))):
        content += chunk
    return content


def _files(root: Path, pattern: str) -> list[Path]:
    return [path for path in files_in(root, "") if fnmatch.fnmatchcase(path.name, pattern)]


def _find(root: Path, prefixes: tuple[str, ...], what: str) -> Path:
    """A split's file: `train-images-idx3-ubyte`, `emnist-balanced-train-images-idx3-ubyte.gz`, ..."""
    named = what.replace("-idx", "[-.]idx")
    found = sorted({path for prefix in prefixes for path in _files(root, f"*{prefix}-{named}*")})
    if len(found) != 1:
        problem = f"{len(found)} files" if found else "no file"
        raise UserError(f"{root} holds {problem} named {prefixes[0]}-{what}[.gz]; data_dir must hold one data set.")
    return found[0]
