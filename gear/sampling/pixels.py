"""From decoded floats to the uint8 image that is stored. `pixels` are (B, 3, H, W), nominally in [-1, 1]."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


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


def _stored(levels: Tensor) -> Tensor:
    return levels.permute(0, 2, 3, 1).to(torch.uint8).contiguous()
