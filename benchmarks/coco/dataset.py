"""COCO captions and images out of parquet files, in the order of the published selection.

The data set is a folder of `*.parquet` files in order of name, columns `image` and `caption`. Its rows, concatenated,
are permuted with NumPy's legacy generator and cut: `selection`. Images are read file by file and never all held.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from harness.contract.digest import digest_json, sha256_file
from harness.contract.errors import MissingAsset

Array = npt.NDArray[Any]

COLUMNS = ("image", "caption")
ROWS_AT_A_TIME = 32


class CocoParquet:
    """A folder of parquet files. Raises MissingAsset when there are none, or they lack the two columns."""

    def __init__(self, folder: Path) -> None:
        import pyarrow.parquet

        self.files = sorted(folder.glob("*.parquet"))
        if not self.files:
            raise MissingAsset(f"{folder}: holds no parquet files; give their folder: --asset coco-val2017=DIR")
        try:
            self._tables = [pyarrow.parquet.ParquetFile(path) for path in self.files]
        except (OSError, pyarrow.ArrowException) as error:
            raise MissingAsset(f"{folder}: cannot be read as parquet ({error}); fetch the files again.") from error
        for path, table in zip(self.files, self._tables, strict=True):
            missing = set(COLUMNS) - set(table.schema_arrow.names)
            if missing:
                raise MissingAsset(f"{path}: has no column '{sorted(missing)[0]}'; it needs {' and '.join(COLUMNS)}.")

    def __len__(self) -> int:
        return sum(table.metadata.num_rows for table in self._tables)

    @property
    def digest(self) -> str:
        """Of the bytes of the files, in order of name."""
        return digest_json([sha256_file(path) for path in self.files])

    def captions(self) -> list[str]:
        """Of every row, in the order of files and rows; the first one where a row has several."""
        found = []
        for table in self._tables:
            for value in table.read(columns=["caption"]).column("caption").to_pylist():
                found.append(str(value[0] if isinstance(value, list) else value))
        return found

    def images(self, wanted: set[int]) -> Iterator[tuple[int, Image.Image]]:
        """(row, RGB image) of the wanted rows, in the order of files and rows."""
        row = 0
        for path, table in zip(self.files, self._tables, strict=True):
            for batch in table.iter_batches(batch_size=ROWS_AT_A_TIME, columns=["image"]):
                for cell in batch.column(0):
                    if row in wanted:
                        yield row, _image(cell.as_py(), path, row)
                    row += 1


def selection(total: int, num_samples: int, seed: int) -> Array:
    """(min(num_samples, total),) int64 rows, in the order in which they are drawn and scored."""
    return np.random.RandomState(seed).permutation(total)[:num_samples]


def _image(cell: Any, path: Path, row: int) -> Image.Image:
    """A cell is raw bytes, or a struct with `bytes` or else `path`."""
    data: bytes | None = cell.get("bytes") if isinstance(cell, dict) else cell
    if data is None and isinstance(cell, dict) and cell.get("path"):
        data = _bytes_of(path.parent / cell["path"], path, row)
    try:
        with Image.open(io.BytesIO(data or b"")) as image:
            return image.convert("RGB")
    except (OSError, TypeError, ValueError) as error:
        raise MissingAsset(f"{path}: row {row} holds no readable image ({error}); fetch the file again.") from error


def _bytes_of(file: Path, path: Path, row: int) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise MissingAsset(f"{path}: row {row} names the image {file}, which cannot be read ({error}).") from error
