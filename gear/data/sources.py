"""Where training images come from. A source gives one image by its index; batches and their order live elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from PIL import Image, UnidentifiedImageError

from gear.data import digits
from gear.data.base import ImageSource, Sample
from gear.data.transforms import center_crop, random_crop, short_side_resize, to_array
from harness.contract.errors import UserError

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".tif", ".tiff"}
Kind = Literal["digits", "image-folder"]


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    kind: Kind = "image-folder"
    """`digits`: the demo's tinted digits, no files needed. `image-folder`: `data_dir/<class>/<image>`."""
    data_dir: str | None = None
    """Folder of training images, one sub-folder per class."""
    image_size: int = 256
    """Side of the square training image in pixels."""
    num_classes: int = 1000
    """Classes of the data set; the AR model adds one null class for guidance."""
    random_hflip: bool = True
    """Mirror half of the images. Never for digits, which change their meaning."""
    num_workers: int = 4
    """Decoding processes; 0 decodes in the training process."""

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise UserError(f"data.kind is {self.kind!r}; choose one of {', '.join(get_args(Kind))}.")
        if self.kind == "digits" and (self.image_size, self.num_classes, self.random_hflip) != (
            digits.IMAGE_SIZE,
            digits.NUM_CLASSES,
            False,
        ):
            raise UserError(
                "the digits are 32 px images of 10 classes that must not be mirrored; "
                "set data.image_size=32 data.num_classes=10 data.random_hflip=false."
            )


class DigitsSource:
    def __init__(self, split: digits.Split = "train") -> None:
        self.digits = digits.load_digits(split)
        self._images = np.ascontiguousarray(self.digits.images_u8.transpose(0, 3, 1, 2))

    def __len__(self) -> int:
        return len(self._images)

    def item(self, index: int, rng: np.random.Generator) -> Sample:
        return Sample(self._images[index], int(self.digits.labels[index]), self.digits.caption(index))


class ImageFolderSource:
    """`root/<class>/**/<image>`, classes numbered in sorted order of their folder names.

    Training images are resized (short side), randomly cropped and mirrored; validation images are centre-cropped.
    """

    def __init__(self, root: Path, image_size: int, *, train: bool = True, random_hflip: bool = True) -> None:
        if not root.is_dir():
            raise UserError(f"{root} is not a folder; data_dir must hold one sub-folder of images per class.")
        self.classes = sorted(path.name for path in root.iterdir() if path.is_dir())
        self.paths, self.labels = [], []
        for label, name in enumerate(self.classes):
            found = sorted(path for path in (root / name).rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
            self.paths.extend(found)
            self.labels.extend([label] * len(found))
        if not self.paths:
            raise UserError(f"{root} holds no image in class folders ({root}/<class>/<image>.jpg); check data_dir.")
        self.image_size, self.train, self.random_hflip = image_size, train, random_hflip

    def __len__(self) -> int:
        return len(self.paths)

    def item(self, index: int, rng: np.random.Generator) -> Sample:
        try:
            with Image.open(self.paths[index]) as opened:
                image = short_side_resize(opened.convert("RGB"), self.image_size)
        except (OSError, UnidentifiedImageError) as error:
            raise UserError(
                f"{self.paths[index]} cannot be read as an image ({error}); remove or replace it."
            ) from None
        if self.train:
            image = random_crop(image, self.image_size, rng)
            if self.random_hflip and rng.random() < 0.5:
                image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        else:
            image = center_crop(image, self.image_size)
        return Sample(to_array(image), self.labels[index])


def open_source(config: DataConfig, *, train: bool = True) -> ImageSource:
    """The source that a configuration names.

    Raises UserError when the folder is missing, empty or holds more classes than `num_classes`.
    """
    if config.kind == "digits":
        return DigitsSource("train" if train else "held_out")
    if config.data_dir is None:
        raise UserError("data_dir is not set; give the folder of class folders with --data-dir DIR.")
    source = ImageFolderSource(Path(config.data_dir), config.image_size, train=train, random_hflip=config.random_hflip)
    if len(source.classes) > config.num_classes:
        raise UserError(
            f"{config.data_dir} holds {len(source.classes)} classes but data.num_classes is {config.num_classes}; "
            f"set data.num_classes={len(source.classes)}."
        )
    return source
