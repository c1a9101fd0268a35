"""A folder of images with captions, as people collect them."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TextIO

import numpy as np

from gear.data.base import BadSample, Sample
from gear.data.folder import image_names
from gear.data.images import open_rgb, training_image
from gear.data.strings import StringTable
from harness.contract.errors import UserError
from harness.contract.files import relative_path_problem
from harness.contract.parse import parse_json
from harness.contract.walk import is_data

METADATA = ("metadata.jsonl", "metadata.csv")
_NAME_FIELD = "file_name"
_CAPTION_FIELDS = ("caption", "text")


class CaptionedFolderSource:
    """Images with `IMAGE.txt` beside each, or listed with their captions in metadata.jsonl or metadata.csv.

    The table has the columns `file_name` (relative to the folder) and `caption` or `text`, as in the hub's image
    folders. Images are resized (short side), centre-cropped and mirrored.
    """

    def __init__(self, root: Path, image_size: int, *, train: bool = True, random_hflip: bool = True) -> None:
        if not root.is_dir():
            raise UserError(f"{root} is not a folder; data_dir must hold images with captions.")
        self.root, self.image_size, self.random_hflip = root, image_size, train and random_hflip
        table = next((root / name for name in METADATA if (root / name).is_file()), None)
        captions = read_metadata(table) if table is not None else None
        names = sorted(captions) if captions is not None else image_names(root)
        if not names:
            raise UserError(f"{table or root} lists no image with a caption; check data_dir.")
        self._names = StringTable(names)
        self._captions = None if captions is None else StringTable(captions[name] for name in names)

    def __len__(self) -> int:
        return len(self._names)

    def item(self, index: int, rng: np.random.Generator) -> Sample:
        path = self.root / self._names[index]
        try:
            caption = self._beside(path) if self._captions is None else self._captions[index]
            image = open_rgb(path, drop_alpha=True)
            pixels = training_image(image, self.image_size, rng, crop="center", random_hflip=self.random_hflip)
        except BadSample as error:
            raise BadSample(f"{path}: {error}") from None
        return Sample(pixels, caption=caption)

    @staticmethod
    def _beside(path: Path) -> str:
        try:
            return path.with_suffix(".txt").read_text(encoding="utf-8", errors="ignore").strip()
        except OSError as error:
            raise BadSample(f"it has no caption beside it ({error.strerror}: {path.stem}.txt)") from None


def read_metadata(path: Path) -> dict[str, str]:
    """Image name -> caption, but for hidden names. Raises UserError naming the row that cannot be used."""
    captions = {}
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            for number, row in enumerate(_rows(path, stream), start=1):
                name, caption = _name_and_caption(row)
                problem = relative_path_problem(name)
                if problem is not None:
                    raise ValueError(f"row {number}: the {_NAME_FIELD} {name!r} {problem}")
                if is_data(name):
                    captions[name] = caption
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{path} cannot be used ({error}); correct it.") from None
    return captions


def _rows(path: Path, stream: TextIO) -> Iterator[Mapping[str, object]]:
    if path.suffix == ".csv":
        yield from csv.DictReader(stream)
    else:
        yield from (parse_json(line, strict=False) for line in stream if line.strip())


def _name_and_caption(row: Mapping[str, object]) -> tuple[str, str]:
    if isinstance(row, Mapping):
        name = row.get(_NAME_FIELD)
        for field in _CAPTION_FIELDS:
            caption = row.get(field)
            if isinstance(name, str) and isinstance(caption, str):
                return name, caption
    raise ValueError(f"every row needs {_NAME_FIELD} and {' or '.join(_CAPTION_FIELDS)}; this one has only {row!r:.80}")
