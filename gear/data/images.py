"""From the bytes of an image to the array that a model trains on."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, UnidentifiedImageError

from gear.data.base import BadSample
from gear.data.transforms import center_crop, random_crop, short_side_resize, to_array
from harness.contract.images import UnclearImage, to_rgb

MAX_PIXELS = 100_000_000
"""Larger images are refused before decoding, as are long, thin ones that resizing would make larger than this."""

Crop = Literal["random", "center"]


def open_rgb(content: Path | bytes, *, accept_truncated: bool = False, drop_alpha: bool = False) -> Image.Image:
    """Decode an image as RGB, by the rule of `harness.contract.images.to_rgb`.

    accept_truncated: use what there is of an image that ends early, as the published text-to-image training does.
    drop_alpha: take the colours beneath the transparent pixels of RGBA, as the published training does.
    Raises BadSample saying what is wrong with it.
    """
    try:
        with (
            Image.open(io.BytesIO(content) if isinstance(content, bytes) else content) as opened,
            _truncation(accept_truncated),
        ):
            if opened.width * opened.height > MAX_PIXELS:
                raise BadSample(f"{opened.width} x {opened.height} pixels are more than the {MAX_PIXELS:,} allowed")
            return to_rgb(opened, drop_alpha=drop_alpha)
    except UnclearImage as error:
        raise BadSample(str(error)) from None
    except UnidentifiedImageError:  # its text holds a memory address: the same problem would look new each time
        raise BadSample("it cannot be read as an image (its format is not known)") from None
    except (OSError, ValueError, SyntaxError, RuntimeError, Image.DecompressionBombError) as error:
        raise BadSample(f"it cannot be read as an image ({error})") from None


def training_image(
    image: Image.Image, size: int, rng: np.random.Generator, *, crop: Crop, random_hflip: bool
) -> npt.NDArray[np.uint8]:
    """Short side to `size`, crop, mirror half of them: (3, size, size) uint8.

    The order of draws is fixed: place of the crop, then the mirror.
    """
    longest = max(image.size) / min(image.size) * size
    if longest * size > MAX_PIXELS:
        raise BadSample(f"{image.width} x {image.height} pixels are too long and thin to be resized")
    image = short_side_resize(image, size)
    image = random_crop(image, size, rng) if crop == "random" else center_crop(image, size)
    if random_hflip and rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return to_array(image)


@contextmanager
def _truncation(accept: bool) -> Iterator[None]:
    """Pillow knows this only as a global."""
    before = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = accept
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before
