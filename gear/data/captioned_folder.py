"""A folder of images with captions, as people collect them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from gear.data.base import BadSample, Sample
from gear.data.folder import image_names
from gear.data.images import open_rgb, training_image
from gear.data.strings import StringTable
from harness.contract.errors import UserError
from harness.contract.files import relative_path_problem
from harness.contract.parse import is_unicode
from harness.contract.text_files import Numbered, csv_rows, decode_text, json_lines
from harness.contract.walk import is_data

METADATA = ("metadata.jsonl", "metadata.csv")
_NAME_FIELD = "file_name"
_CAPTION_FIELDS = ("caption", "text")


class CaptionedFolderSource:
    """Images with `IMAGE.txt` beside each, or listed with their captions in metadata.jsonl or metadata.csv.

    The table has the columns `file_name` (relative to the folder) and `caption` or `text`, as in the hub's image
    folders; an image with several rows is as many samples. Images are resized (short side), centre-cropped and
    mirrored.
    """

    def __init__(self, root: Path, image_size: int, *, train: bool = True, random_hflip: bool = True) -> None:
        if not root.is_dir():
            raise UserError(f"{root} is not a folder; data_dir must hold images with captions.")
        self.root, self.image_size, self.random_hflip = root, image_size, train and random_hflip
        table = next((root / name for name in METADATA if (root / name).is_file()), None)
        rows = sorted(read_metadata(table), key=lambda row: row[0]) if table is not None else None
        names = image_names(root) if rows is None else [name for name, _ in rows]
        if not names:
            raise UserError(f"{table or root} lists no image with a caption; check data_dir.")
        self._names = StringTable(names)
        self._captions = None if rows is None else StringTable(caption for _, caption in rows)

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
            return decode_text(path.with_suffix(".txt").read_bytes()).strip()
        except OSError as error:
            raise BadSample(f"it has no caption beside it ({error.strerror}: {path.stem}.txt)") from None
        except ValueError as error:
            raise BadSample(f"its caption {path.stem}.txt cannot be read ({error})") from None


def read_metadata(path: Path) -> list[tuple[str, str]]:
    """(image name, caption) of every row, but for hidden names.

    Raises:
        UserError: naming the line that cannot be used.
    """
    found = []
    try:
        for number, row in _rows(path):
            name, caption = _name_and_caption(row, number)
            problem = relative_path_problem(name)
            if problem is not None:
                raise ValueError(f"line {number}: the {_NAME_FIELD} {name!r} {problem}")
            if is_data(name):
                found.append((name, caption))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be used ({error}); correct it.") from None
    return found


def _rows(path: Path) -> Numbered:
    text = decode_text(path.read_bytes())
    return csv_rows(text, [_NAME_FIELD]) if path.suffix == ".csv" else json_lines(text)


def _name_and_caption(row: object, number: int) -> tuple[str, str]:
    if isinstance(row, Mapping):
        name = row.get(_NAME_FIELD)
        for field in _CAPTION_FIELDS:
            caption = row.get(field)
            if isinstance(name, str) and isinstance(caption, str) and is_unicode(name + caption):
                return name, caption
    fields = f"{_NAME_FIELD} and {' or '.join(_CAPTION_FIELDS)}"
    raise ValueError(f"line {number}: every row needs {fields}; this one has only {row!r:.80}")
