"""The published selection of captioned images out of parquet files: what text-to-image training is watched on.

A folder of `*.parquet` files in order of name, columns `image` (raw bytes, or a struct with `bytes` or else `path`) and
`caption`. Their rows, concatenated, are permuted with NumPy's legacy generator and cut.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from harness.contract.errors import EnvironmentFailure, MissingAsset
from harness.contract.images import to_square

COLUMNS = ("image", "caption")
ROWS_AT_A_TIME = 32


class CocoSelection:
    """Captions, and their images on demand; both by place in the selection."""

    def __init__(self, folder: Path, num: int, seed: int) -> None:
        """The first `num` rows of the permutation, or all that there are.

        Raises MissingAsset when the folder holds no such files, EnvironmentFailure without pyarrow.
        """
        self._files = _opened(folder)
        captions = [caption for _, table in self._files for caption in _captions(table)]
        self.rows = selection(len(captions), num, seed)
        self.captions = [captions[row] for row in self.rows]

    def __len__(self) -> int:
        return len(self.rows)

    def images(self, start: int, stop: int, size: int) -> npt.NDArray[np.uint8]:
        """(stop - start, size, size, 3) uint8 of the places start to stop. One pass over the files."""
        place_of = {int(row): place for place, row in enumerate(self.rows[start:stop])}
        images = np.empty((len(place_of), size, size, 3), np.uint8)
        for row, path, cell in self._cells():
            if row in place_of:
                images[place_of[row]] = np.asarray(to_square(_image(cell.as_py(), path, row), size))
        return images

    def _cells(self) -> Iterator[tuple[int, Path, Any]]:
        row = 0
        for path, table in self._files:
            for batch in table.iter_batches(batch_size=ROWS_AT_A_TIME, columns=["image"]):
                for cell in batch.column(0):
                    yield row, path, cell
                    row += 1


def selection(total: int, num: int, seed: int) -> npt.NDArray[np.int64]:
    """(min(num, total),) rows, in the order in which they are drawn and compared."""
    return np.random.RandomState(seed).permutation(total)[:num].astype(np.int64)


def _opened(folder: Path) -> list[tuple[Path, Any]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError:
        raise EnvironmentFailure(
            "watch.coco_every reads parquet files with pyarrow, which is not installed; install it with "
            "`pip install 'gear-harness[coco]'`, or set watch.coco_every=0."
        ) from None
    files = sorted(folder.glob("*.parquet"))
    if not files:
        raise MissingAsset(f"{folder} holds no *.parquet files; name their folder: --set watch.coco_dir=DIR.")
    opened = []
    for path in files:
        try:
            table = pyarrow.parquet.ParquetFile(path)
        except (OSError, pyarrow.ArrowException) as error:
            raise MissingAsset(f"{path} cannot be read as parquet ({error}); fetch it again.") from None
        missing = set(COLUMNS) - set(table.schema_arrow.names)
        if missing:
            raise MissingAsset(f"{path} has no column '{min(missing)}'; it needs {' and '.join(COLUMNS)}.")
        opened.append((path, table))
    return opened


def _captions(table: Any) -> Iterator[str]:
    """Of every row; the first one where a row has several."""
    for value in table.read(columns=["caption"]).column("caption").to_pylist():
        yield str(value[0] if isinstance(value, list) else value)


def _image(cell: Any, path: Path, row: int) -> Image.Image:
    """RGB, of raw bytes or a struct."""
    try:
        data = cell if isinstance(cell, bytes) else cell["bytes"] or (path.parent / cell["path"]).read_bytes()
        with Image.open(io.BytesIO(data)) as image:
            return image.convert("RGB")
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise MissingAsset(f"{path}: row {row} holds no readable image ({error}); fetch the file again.") from None
