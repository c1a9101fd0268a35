"""Images in class folders, the layout of ImageNet."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from gear.data.base import BadSample, Sample
from gear.data.images import open_rgb, training_image
from gear.data.strings import StringTable
from harness.contract.errors import UserError
from harness.contract.walk import find_images, subfolders

log = logging.getLogger(__name__)

_SHOWN = 8


class ImageFolderSource:
    """`root/<class>/**/<image>`, classes numbered in sorted order of their folder names.

    Training images are resized (short side), randomly cropped and mirrored; validation images are centre-cropped.
    """

    def __init__(self, root: Path, image_size: int, *, train: bool = True, random_hflip: bool = True) -> None:
        if not root.is_dir():
            raise UserError(f"{root} is not a folder; data_dir must hold one sub-folder of images per class.")
        self.root, self.image_size, self.train = root, image_size, train
        self.random_hflip = train and random_hflip
        by_class = _by_class(root)
        self.classes = list(by_class)
        self.labels = np.repeat(np.arange(len(by_class)), [len(names) for names in by_class.values()])
        self._names = StringTable(name for names in by_class.values() for name in names)

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


def image_names(root: Path) -> list[str]:
    """Paths of the images below `root`, relative to it: what `harness.contract.walk` finds, sorted as text.

    Logs how many images of other kinds there are, which are not read.
    """
    found = find_images(root)
    if found.others:
        log.warning("%s: holds %s, which cannot be read; convert them to PNG.", root, found.others_in_words())
    return sorted(found.taken, key=_as_text)


def _as_text(name: str) -> str:
    """What names are sorted by. It decides which sample has which number, so it stays as the first version had it."""
    return name if "/" in name else f"./{name}"


def _by_class(root: Path) -> dict[str, list[str]]:
    """Class folder -> its images. Raises UserError when one has none, since it would take a number all the same."""
    found: dict[str, list[str]] = {name: [] for name in subfolders(root)}
    unplaced: list[str] = []
    for name in image_names(root):
        first, slash, _ = name.partition("/")
        (found[first] if slash else unplaced).append(name)
    if not any(found.values()):
        raise UserError(f"{root} holds no image in class folders ({root}/<class>/<image>.jpg); check data_dir.")
    if empty := [name for name, names in found.items() if not names]:
        shown = ", ".join(empty[:_SHOWN]) + (f" and {len(empty) - _SHOWN} more" if len(empty) > _SHOWN else "")
        raise UserError(
            f"{root} holds class folders without an image: {shown}; put images into them, or remove them, since every "
            "folder takes a class number."
        )
    if unplaced:
        log.warning(
            "%s: %d images lie in no class folder and are not read, such as %s.", root, len(unplaced), unplaced[0]
        )
    return found
