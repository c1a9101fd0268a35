"""The published architectures with small width and depth, so that a test can run them."""

from __future__ import annotations

import dataclasses

import torch

from gear.teachers import FAMILIES
from gear.teachers.layers import FINAL_LAYER
from gear.teachers.preprocess import preprocess
from gear.teachers.vit import ViTFamily, ViTTeacher

WIDTH, HEADS = 48, 2


def shallow(family: str, *, depth: int, layer: int = FINAL_LAYER, size: str | None = None, seed: int = 0) -> ViTTeacher:
    """A teacher of a family with 48 channels and the same random weights for the same seed.

    size: whose architecture is shrunk; b, or L for CLIP, if not given.
    """
    whole, size = FAMILIES[family], size or ("L" if family == "clip" else "b")
    assert isinstance(whole, ViTFamily)
    variant = whole.variants[size]
    if family == "jepa21":
        changes = {"dim": WIDTH, "depth": depth, "num_heads": HEADS, "ffn_dim": 4 * WIDTH}
    else:
        changes = {**variant.changes, "embed_dim": WIDTH, "depth": depth, "num_heads": HEADS}
    small = dataclasses.replace(variant, dim=WIDTH, changes=changes)
    torch.manual_seed(seed)
    teacher = ViTTeacher(dataclasses.replace(whole, variants={size: small}), size, 256, layer=layer)
    with torch.no_grad():
        for parameter in teacher.parameters():  # initial values hide mistakes: layer scales of 1e-5, empty biases
            parameter.normal_(std=0.2)
    return teacher


def as_seen_by(family: str, images_u8: torch.Tensor) -> torch.Tensor:
    """The network's input, preprocessed as a family of vision transformers expects."""
    chosen = FAMILIES[family]
    assert isinstance(chosen, ViTFamily)
    return preprocess(images_u8, chosen.input)
