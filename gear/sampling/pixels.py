"""From decoded floats to the uint8 image that is stored. `pixels` are (B, 3, H, W), nominally in [-1, 1]."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

Rounding = Literal["truncate", "nearest"]


@dataclass(frozen=True, kw_only=True)
class OutputPixels:
    """Levels and size of the stored images, in one of the published ways."""

    image_size: int
    resize_levels: bool = False
    """True: resize the uint8 image with Pillow, as the prompt benchmarks do; False: the float image, as the
    class-conditional ones do."""
    rounding: Rounding = "truncate"
    """`nearest` is what the COCO evaluation stores."""

    @property
    def name(self) -> str:
        """For the identity of a sample set."""
        return f"{'pillow' if self.resize_levels else 'float'}-bicubic, {self.rounding}"

    def __call__(self, pixels: Tensor) -> npt.NDArray[np.uint8]:
        """(B, size, size, 3) uint8."""
        levels = to_u8 if self.rounding == "truncate" else to_u8_rounded
        if not self.resize_levels:
            return levels(resize(pixels, self.image_size)).cpu().numpy()
        return resize_u8(levels(pixels).cpu().numpy(), self.image_size)


def to_u8(pixels: Tensor) -> Tensor:
    """uint8 (B, H, W, 3): clamp(127.5 x + 128, 0, 255), truncated."""
    return _stored((127.5 * pixels + 128.0).clamp(0.0, 255.0))


def to_u8_rounded(pixels: Tensor) -> Tensor:
    """uint8 (B, H, W, 3): 255 (x + 1) / 2 of x clamped to [-1, 1], rounded; what the COCO evaluation stores."""
    return _stored((255.0 * (pixels.clamp(-1.0, 1.0) + 1.0) / 2.0).round())


def resize(pixels: Tensor, size: int) -> Tensor:
    """Bicubic to (B, 3, size, size) on the float image, without antialiasing; unchanged where the size is right."""
    if pixels.shape[-2:] == (size, size):
        return pixels
    return F.interpolate(pixels, size=(size, size), mode="bicubic", align_corners=False)


def resize_u8(images_u8: npt.NDArray[np.uint8], size: int) -> npt.NDArray[np.uint8]:
    """Pillow's bicubic to (B, size, size, 3) on the levels; unchanged where the size is right."""
    if images_u8.shape[1:3] == (size, size):
        return images_u8
    resized = [Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC) for image in images_u8]
    return np.stack([np.asarray(image) for image in resized])


def _stored(levels: Tensor) -> Tensor:
    return levels.permute(0, 2, 3, 1).to(torch.uint8).contiguous()
