"""Preprocessing of the raw uint8 image, as each family of teachers expects it.

Shapes: B images of R x R pixels. Every family ends up with (R / 16)^2 patches, the token grid of a tokenizer that
downsamples by 16.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

Channels = tuple[float, float, float]

IMAGENET: tuple[Channels, Channels] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and standard deviation of ImageNet's images in [0, 1]; what most networks were trained with."""


def same_side(image_size: int) -> int:
    """The network reads the image as it is."""
    return image_size


def patches_of_14(image_size: int) -> int:
    """14 pixels for every 16 of the image, so that one patch of 14 pixels belongs to one token."""
    return image_size // 16 * 14


@dataclass(frozen=True, kw_only=True)
class InputRule:
    """How one family preprocesses its images."""

    normalisation: tuple[Channels, Channels]
    """Mean and standard deviation per channel, of images in [0, 1]."""
    side: Callable[[int], int] = same_side
    """Side of the network's input for an image of R pixels."""
    resize_first: bool = False
    """Resize before normalising. The two orders agree up to float32 rounding; this one is what was published."""
    image_sizes: tuple[int, ...]
    """Sizes R that the family supports."""
    num_special: int = 0
    """Special tokens (class, registers) in front of the patches of a hidden layer."""
    patch: int = 16
    """Side of a patch, in pixels of the network's input."""


def preprocess(images_u8: Tensor, rule: InputRule) -> Tensor:
    """The network's input for raw images: (B, 3, R, R) uint8 -> float32 (B, 3, side, side).

    Resizing is bicubic without antialiasing. V-JEPA 2.1 reads clips; its single frame is added by the teacher.
    Raises ValueError for another dtype or shape, or an image smaller than a patch.
    """
    if images_u8.dtype != torch.uint8 or images_u8.ndim != 4 or images_u8.shape[2] != images_u8.shape[3]:
        raise ValueError(f"teachers read uint8 (B, 3, R, R), not {images_u8.dtype} of shape {tuple(images_u8.shape)}")
    side = rule.side(images_u8.shape[-1])
    if side < rule.patch:
        raise ValueError(f"an image of {images_u8.shape[-1]} pixels is too small for this teacher")
    images_01 = images_u8.float() / 255.0
    if rule.resize_first:
        return _normalise(_resize(images_01, side), rule)
    return _resize(_normalise(images_01, rule), side)


def _normalise(images_01: Tensor, rule: InputRule) -> Tensor:
    mean, std = (images_01.new_tensor(values)[:, None, None] for values in rule.normalisation)
    return (images_01 - mean) / std


def _resize(images: Tensor, side: int) -> Tensor:
    if images.shape[-1] == side:
        return images
    return F.interpolate(images, size=(side, side), mode="bicubic", align_corners=False)
