"""What each family of teachers expects to see, from the raw uint8 image.

Shapes: B images of R x R pixels. Every family ends up with (R / 16)^2 patches, the token grid of a tokenizer that
downsamples by 16.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.contract.errors import UserError

Channels = tuple[float, float, float]

_IMAGENET: tuple[Channels, Channels] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_CLIP: tuple[Channels, Channels] = (
    (0.48145466, 0.4578275, 0.40821073),
    (0.26862954, 0.26130258, 0.27577711),
)
_HALF: tuple[Channels, Channels] = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@dataclass(frozen=True, kw_only=True)
class InputRule:
    """How one family wants its images."""

    normalisation: tuple[Channels, Channels]
    """Mean and standard deviation per channel, of images in [0, 1]."""
    side: Callable[[int], int]
    """Side of the network's input for an image of R pixels."""
    resize_first: bool = False
    """Resize before normalising. The two orders agree up to float32 rounding; this one is what was published."""
    image_sizes: tuple[int, ...]
    """Sizes R that the family is used at."""
    num_special: int = 0
    """Special tokens (class, registers) in front of the patches of a hidden layer."""
    patch: int = 16
    """Side of a patch, in pixels of the network's input."""


def _unchanged(image_size: int) -> int:
    return image_size


def _patches_of_14(image_size: int) -> int:
    return image_size // 16 * 14


INPUT_RULES: Mapping[str, InputRule] = {
    "dinov2": InputRule(
        normalisation=_IMAGENET, side=_patches_of_14, image_sizes=(256, 384, 512, 1024), num_special=1, patch=14
    ),
    "dinov2_reg": InputRule(
        normalisation=_IMAGENET, side=_patches_of_14, image_sizes=(256, 384, 512, 1024), num_special=5, patch=14
    ),
    "dinov3": InputRule(normalisation=_IMAGENET, side=_unchanged, image_sizes=(256, 512, 1024), num_special=5),
    "jepa21": InputRule(normalisation=_IMAGENET, side=_unchanged, image_sizes=(256, 512, 1024)),
    "siglip2": InputRule(normalisation=_HALF, side=_unchanged, image_sizes=(256, 512)),
    "clip": InputRule(
        normalisation=_CLIP,
        side=lambda image_size: 224 * (image_size // 256),
        image_sizes=(256,),
        resize_first=True,
        num_special=1,
        patch=14,
    ),
}
"""Family -> its rule."""


def preprocess(images_u8: Tensor, family: str) -> Tensor:
    """The network's input for raw images: (B, 3, R, R) uint8 -> float32 (B, 3, side, side).

    Resizing is bicubic without antialiasing. V-JEPA 2.1 reads clips; its single frame is added by the teacher.
    Raises ValueError for an unknown family, another dtype, or an image too small for the family.
    """
    rule = rule_of(family)
    if images_u8.dtype != torch.uint8 or images_u8.ndim != 4 or images_u8.shape[2] != images_u8.shape[3]:
        raise ValueError(f"teachers read uint8 (B, 3, R, R), not {images_u8.dtype} of shape {tuple(images_u8.shape)}")
    side = rule.side(images_u8.shape[-1])
    if side < rule.patch:
        raise ValueError(f"an image of {images_u8.shape[-1]} pixels is too small for the teacher {family}")
    images_01 = images_u8.float() / 255.0
    if rule.resize_first:
        return _normalise(_resize(images_01, side), rule)
    return _resize(_normalise(images_01, rule), side)


def rule_of(family: str) -> InputRule:
    """The rule of a family. Raises ValueError listing the families when it is unknown."""
    if family not in INPUT_RULES:
        raise ValueError(f"there is no teacher family {family!r} (there are {', '.join(INPUT_RULES)})")
    return INPUT_RULES[family]


def check_image_size(family: str, image_size: int) -> None:
    """Raises UserError where a family is not used at this size, naming the families that are."""
    if image_size not in rule_of(family).image_sizes:
        able = [name for name, rule in INPUT_RULES.items() if image_size in rule.image_sizes]
        others = f"at {image_size} px take one of {', '.join(able)}" if able else "the teacher lite0 takes any size"
        sizes = ", ".join(map(str, rule_of(family).image_sizes))
        raise UserError(f"the teacher {family} is used at {sizes} px, not at {image_size}; {others}.")


def _normalise(images_01: Tensor, rule: InputRule) -> Tensor:
    mean, std = (images_01.new_tensor(values)[:, None, None] for values in rule.normalisation)
    return (images_01 - mean) / std


def _resize(images: Tensor, side: int) -> Tensor:
    if images.shape[-1] == side:
        return images
    return F.interpolate(images, size=(side, side), mode="bicubic", align_corners=False)
