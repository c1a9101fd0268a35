"""COCO captions and images from parquet files, in the order of the published selection.

The data set is a folder of `*.parquet` files in order of name, columns `image` and `caption`. Its rows, concatenated,
are permuted with NumPy's legacy generator and cut: `selection`. Images are read file by file, never all at once.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from harness.contract.digest import digest_json, sha256_file
from harness.contract.errors import EnvironmentFailure, MissingAsset
from harness.contract.images import UnclearImage, to_rgb, to_square
from harness.contract.text_files import one_text
from harness.contract.walk import files_in

Array = npt.NDArray[Any]

COLUMNS = ("image", "caption")
ROWS_AT_A_TIME = 32


class CocoParquet:
    """A folder of parquet files."""

    def __init__(self, folder: Path, *, setting: str = "--asset coco-val2017=DIR") -> None:
        """Open the files; images stay unread.

        Args:
            folder: with `*.parquet`.
            setting: how the user names the folder, for messages.
        Raises:
            MissingAsset: there are none, or they lack one of the two columns.
            EnvironmentFailure: pyarrow is not installed.
        """
        self.files = files_in(folder, ".parquet", error=MissingAsset) if folder.is_dir() else []
        if not self.files:
            raise MissingAsset(f"{folder}: holds no *.parquet files; name their folder: {setting}")
        self._tables = [_opened(path) for path in self.files]

    def __len__(self) -> int:
        return sum(table.metadata.num_rows for table in self._tables)

    @property
    def digest(self) -> str:
        """Digest of the bytes of the files, in order of name."""
        return digest_json([sha256_file(path) for path in self.files])

    def captions(self) -> list[str]:
        """The caption of every row, in the order of files and rows; the first one where a row has several.

        Raises:
            MissingAsset: naming the row that has none.
        """
        found: list[str] = []
        for path, table in zip(self.files, self._tables, strict=True):
            for value in _explained(path, partial(_captions_of, table)):
                found.append(_caption(value, path, len(found)))
        return found

    def images(self, wanted: set[int]) -> Iterator[tuple[int, Image.Image]]:
        """(row, RGB image) of the requested rows, in the order of files and rows."""
        row = 0
        for path, table in zip(self.files, self._tables, strict=True):
            for batch in table.iter_batches(batch_size=ROWS_AT_A_TIME, columns=["image"]):
                for cell in batch.column(0):
                    if row in wanted:
                        yield row, _image(cell.as_py(), path, row)
                    row += 1


class CocoSelection:
    """Captions, and their images on demand; both by position in the selection."""

    def __init__(self, dataset: CocoParquet, num_samples: int, seed: int) -> None:
        self.dataset = dataset
        captions = dataset.captions()
        self.rows = selection(len(captions), num_samples, seed)
        self.captions = [captions[row] for row in self.rows]

    def __len__(self) -> int:
        return len(self.rows)

    def images(self, start: int, stop: int, size: int) -> npt.NDArray[np.uint8]:
        """(stop - start, size, size, 3) uint8 of positions start to stop. One pass over the files."""
        place_of = {int(row): place for place, row in enumerate(self.rows[start:stop])}
        images = np.empty((len(place_of), size, size, 3), np.uint8)
        for row, image in self.dataset.images(set(place_of)):
            images[place_of[row]] = np.asarray(to_square(image, size))
        return images


def selection(total: int, num_samples: int, seed: int) -> Array:
    """(min(num_samples, total),) int64 rows, in the order in which they are drawn and scored."""
    return np.random.RandomState(seed).permutation(total)[:num_samples]


def _opened(path: Path) -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise EnvironmentFailure(
            "COCO's parquet files are read with pyarrow, which is not installed; install it with: "
            "pip install 'gear-harness[coco]'"
        ) from error
    table = _explained(path, partial(pyarrow.parquet.ParquetFile, path))
    missing = set(COLUMNS) - set(table.schema_arrow.names)
    if missing:
        raise MissingAsset(f"{path}: has no column '{min(missing)}'; it needs {' and '.join(COLUMNS)}.")
    return table


def _explained(path: Path, read: Callable[[], Any]) -> Any:
    """What `read` gives; MissingAsset where the file is damaged."""
    import pyarrow

    try:
        return read()
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        raise MissingAsset(f"{path}: cannot be read as parquet ({error}); fetch it again.") from error


def _captions_of(table: Any) -> list[Any]:
    values: list[Any] = table.read(columns=["caption"]).column("caption").to_pylist()
    return values


def _caption(value: Any, path: Path, row: int) -> str:
    """The caption of a cell: a text, or the first of several."""
    text = next(iter(value), None) if isinstance(value, list) else value
    try:
        return one_text(text, f"row {row}")
    except ValueError as error:
        raise MissingAsset(f"{path}: {error}; leave the row out, or give it a caption.") from None


def _image(cell: Any, path: Path, row: int) -> Image.Image:
    """A cell is raw bytes, or a struct with `bytes` or else `path`."""
    data: bytes | None = cell.get("bytes") if isinstance(cell, dict) else cell
    if data is None and isinstance(cell, dict) and cell.get("path"):
        data = _bytes_of(path.parent / cell["path"], path, row)
    try:
        with Image.open(io.BytesIO(data or b"")) as image:
            return to_rgb(image)
    except UnclearImage as error:
        raise MissingAsset(f"{path}: the image of row {row} {error}.") from None
    except UnidentifiedImageError as error:  # its text holds the address of an object
        raise MissingAsset(f"{path}: row {row} holds no readable image; fetch the file again.") from error
    except (OSError, TypeError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise MissingAsset(f"{path}: row {row} holds no readable image ({error}); fetch the file again.") from error


def _bytes_of(file: Path, path: Path, row: int) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise MissingAsset(f"{path}: row {row} names the image {file}, which cannot be read ({error}).") from error
