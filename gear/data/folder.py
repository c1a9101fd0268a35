"""Images in class folders, the layout of ImageNet."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from gear.data.base import BadSample, Sample
from gear.data.images import IMAGE_SUFFIXES, open_rgb, training_image
from gear.data.strings import StringTable
from harness.contract.errors import UserError


class ImageFolderSource:
    """`root/<class>/**/<image>`, classes numbered in sorted order of their folder names.

    Training images are resized (short side), randomly cropped and mirrored; validation images are centre-cropped.
    """

    def __init__(self, root: Path, image_size: int, *, train: bool = True, random_hflip: bool = True) -> None:
        if not root.is_dir():
            raise UserError(f"{root} is not a folder; data_dir must hold one sub-folder of images per class.")
        self.root, self.image_size, self.train = root, image_size, train
        self.random_hflip = train and random_hflip
        self.classes = sorted(path.name for path in root.iterdir() if path.is_dir())
        found = [image_names(root, name) for name in self.classes]
        self.labels = np.repeat(np.arange(len(found)), [len(names) for names in found])
        if not len(self.labels):
            raise UserError(f"{root} holds no image in class folders ({root}/<class>/<image>.jpg); check data_dir.")
        self._names = StringTable(name for names in found for name in names)

    def __len__(self) -> int:
        return len(self._names)

    def item(self, index: int, rng: np.random.Generator) -> Sample:
        path = self.root / self._names[index]
        try:
            image = open_rgb(path, drop_alpha=True)
            pixels = training_image(
                image, self.image_size, rng, crop="random" if self.train else "center", random_hflip=self.random_hflip
            )
        except BadSample as error:
            raise BadSample(f"{path}: {error}") from None
        return Sample(pixels, int(self.labels[index]))


def image_names(root: Path, folder: str = "") -> list[str]:
    """Paths below `root/folder`, relative to `root`, of everything named like an image; sorted, links followed."""
    found: list[str] = []
    for parent, _, files in os.walk(root / folder, followlinks=True):
        below = Path(parent).relative_to(root).as_posix()
        found.extend(f"{below}/{name}" for name in files if Path(name).suffix.lower() in IMAGE_SUFFIXES)
    return sorted(found)
