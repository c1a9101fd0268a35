"""The exact resizes and crops that published numbers were computed with, on PIL images.

Pillow's antialiased filters on uint8 are part of the protocol: another library's resize changes pixels by several
levels, and FID with them.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

Filter = Literal["bicubic", "bilinear"]

_RESAMPLING = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


def short_side_resize(image: Image.Image, size: int, *, resample: Filter = "bicubic") -> Image.Image:
    """The short side becomes `size`, the long side int(size * long / short).

    Bicubic for training and evaluation; bilinear is the protocol of some published tokenizer evaluations.
    """
    width, height = image.size
    short = min(width, height)
    new_size = (int(size * width / short), int(size * height / short))
    return image if new_size == image.size else image.resize(new_size, _RESAMPLING[resample])


def center_crop(image: Image.Image, size: int) -> Image.Image:
    """The middle size x size pixels; an odd margin is halved with ties to even."""
    width, height = _at_least(image, size)
    return _crop(image, round((width - size) / 2), round((height - size) / 2), size)


def random_crop(image: Image.Image, size: int, rng: np.random.Generator) -> Image.Image:
    """size x size pixels from a uniformly drawn place."""
    width, height = _at_least(image, size)
    top = int(rng.integers(height - size + 1))
    left = int(rng.integers(width - size + 1))
    return _crop(image, left, top, size)


def adm_center_crop(image: Image.Image, size: int) -> Image.Image:
    """The crop of ADM (arXiv:2105.05233), which its reference batches were made with; not used for training here.

    Halve with a box filter while the short side is at least twice `size`, then bicubic, then crop with floored margins.
    """
    while min(image.size) >= 2 * size:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    short = min(image.size)
    new_size = (round(image.width * size / short), round(image.height * size / short))
    image = image.resize(new_size, Image.Resampling.BICUBIC)
    return _crop(image, (image.width - size) // 2, (image.height - size) // 2, size)


def to_array(image: Image.Image) -> npt.NDArray[np.uint8]:
    """RGB image -> (3, H, W) uint8, contiguous."""
    return np.ascontiguousarray(np.asarray(image.convert("RGB"), dtype=np.uint8).transpose(2, 0, 1))


def _crop(image: Image.Image, left: int, top: int, size: int) -> Image.Image:
    return image.crop((left, top, left + size, top + size))


def _at_least(image: Image.Image, size: int) -> tuple[int, int]:
    if min(image.size) < size:
        width, height = image.size
        raise ValueError(f"a {width} x {height} image has no {size} x {size} crop; resize its short side first")
    return image.size
