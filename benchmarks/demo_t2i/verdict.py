"""Whether a picture shows the digit and the colour that its prompt names. Pure: NumPy and the standard library.

The colour is read from the hue alone: whatever the strength of the ink, paper is white, so the pixels with most ink
have the hue of the colour.
"""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

_INK = 0.5
"""Pixels with at least this share of the picture's strongest ink decide the hue: the rest is nearly paper."""
_LEAST_INK = 0.2
"""Share of full ink: a picture with less than that everywhere is blank."""
_LEAST_SATURATION = 0.2
"""Saturation: below it, ink is grey, whatever its hue."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether a picture shows what its prompt asks for, and if not, why."""

    digit: str
    """The digit that was read."""
    colour: str | None
    """The colour that was seen; None on blank paper and in grey ink."""
    digit_right: bool
    colour_right: bool

    @property
    def correct(self) -> bool:
        """Both."""
        return self.digit_right and self.colour_right


def judge(metadata: Mapping[str, Any], digit: str, colour: str | None) -> tuple[Verdict, list[str]]:
    """The verdict, and the reasons where it is wrong, in GenEval's words.

    metadata: the prompt's; its one clause names a digit as `class` and a `color`.
    """
    clause = metadata["include"][0]
    verdict = Verdict(
        digit=digit,
        colour=colour,
        digit_right=colour is not None and digit == clause["class"],
        colour_right=colour == clause["color"],
    )
    reasons = []
    if colour is None:
        return verdict, [f"expected {clause['class']}>=1, found 0"]
    if not verdict.digit_right:
        reasons.append(f"expected {clause['class']}>=1, found {digit}")
    if not verdict.colour_right:
        reasons.append(f"expected {clause['color']} {clause['class']}>=1, found {colour}")
    return verdict, reasons


def colours_of(images_u8: npt.NDArray[np.uint8], palette: Mapping[str, Sequence[int]]) -> list[str | None]:
    """The name in `palette` (name -> sRGB) whose hue is nearest to that of each image's ink; None: no colour.

    images_u8: (N, H, W, 3) uint8, ink on white.
    """
    hues = {name: hue_of(np.asarray(colour) / 255.0) for name, colour in palette.items()}
    return [_colour_of(image / 255.0, hues) for image in images_u8]


def _colour_of(image_01: npt.NDArray[np.float64], hues: Mapping[str, float]) -> str | None:
    ink = 1.0 - image_01.min(axis=-1)
    if ink.max() < _LEAST_INK:
        return None
    mixed = image_01[ink >= _INK * ink.max()].mean(axis=0)
    if mixed.max() - mixed.min() < _LEAST_SATURATION * mixed.max():
        return None
    hue = hue_of(mixed)
    return min(hues, key=lambda name: hue_distance(hues[name], hue))


def hue_of(rgb_01: npt.NDArray[np.float64]) -> float:
    """The hue of an sRGB colour, as a share of the circle, 0..1."""
    return colorsys.rgb_to_hsv(*(float(channel) for channel in rgb_01))[0]


def hue_distance(a: float, b: float) -> float:
    """The shorter way around, 0..0.5."""
    return abs((a - b + 0.5) % 1.0 - 0.5)
