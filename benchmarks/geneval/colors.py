"""The arithmetic behind an object's colour: which pixels are used, and which of ten colours is nearest.

The embeddings come from CLIP (`clip.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

Array = npt.NDArray[Any]

COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
"""In the order of the classifier's columns."""
TEMPLATES = ("a photo of a {color} {name}", "a photo of a {color}-colored {name}", "a photo of a {color} object")
LOGIT_SCALE = 100.0


def color_prompts(name: str) -> list[str]:
    """The 30 prompts of a class: three for each colour, in the order of `COLORS`."""
    return [template.format(color=color, name=name) for color in COLORS for template in TEMPLATES]


def color_classifier(text_embeddings: Array) -> Array:
    """(30, D) raw embeddings of `color_prompts` -> (D, 10) unit columns, one per colour.

    The three prompts of a colour are averaged as unit vectors, and the mean is normalised again.
    """
    prompts = _unit(text_embeddings).reshape(len(COLORS), len(TEMPLATES), -1)
    return _unit(prompts.mean(axis=1)).T


def nearest_colors(image_embeddings: Array, classifier: Array) -> list[str]:
    """(N, D) raw embeddings of crops -> the colour of each."""
    logits = LOGIT_SCALE * _unit(image_embeddings) @ classifier
    return [COLORS[index] for index in logits.argmax(axis=1)]


def crop_object(
    image_u8: Array, box: Sequence[float] | Array, mask: Array | None, *, background: str = "#999", crop: bool = True
) -> Image.Image:
    """The part of an image that decides an object's colour.

    Args:
        image_u8: (H, W, 3) uint8.
        box: x1, y1, x2, y2 in pixels; rounded to the nearest whole number, halves to even. Black beyond the image.
        mask: (H, W) bool; pixels outside it become `background`. None: the object has no mask, all pixels stay.
        background: a colour name of Pillow, or "original".
        crop: False keeps the whole image.
    """
    image = Image.fromarray(image_u8)
    if mask is not None and background != "original":
        plain = Image.new("RGB", image.size, background)
        image = Image.composite(image, plain, Image.fromarray(np.where(mask, 255, 0).astype(np.uint8)))
    if not crop:
        return image
    # Python numbers: Pillow compares the corners, and the truth value of an array is undefined.
    left, top, right, bottom = (float(value) for value in box[:4])
    return image.crop((left, top, right, bottom))


def _unit(rows: Array) -> Array:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)
