"""A published vision transformer as a teacher: preprocessing, one layer's patches, weights from outside."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gear.foreign import StateDict, is_state_dict, load_exactly, read_weights
from gear.teachers.base import Teacher
from gear.teachers.family import Family, Variant
from gear.teachers.layers import FINAL_LAYER, patch_features
from gear.teachers.preprocess import check_image_size, preprocess, rule_of
from harness.contract.errors import UserError


class ViTTeacher(Teacher):
    """Patches of one layer of a frozen vision transformer, with random weights until `load`."""

    def __init__(self, family: Family, size: str, image_size: int, *, layer: int = FINAL_LAYER) -> None:
        """size: last part of the name. layer: FINAL_LAYER, or n for the output of block n (from 1) before the norm.

        Raises UserError: the family has no such size or layer, or is not used at that image size.
        """
        super().__init__()
        self.family, self.variant, self.layer = family, variant_of(family, size), layer
        check_image_size(family.name, image_size)
        rule = rule_of(family.name)
        side = rule.side(image_size)
        self.dim, self.grid, self.num_special = self.variant.dim, side // rule.patch, rule.num_special
        self.network: Any = family.build(self.variant, side).eval().requires_grad_(False)
        self._check_layer(f"{family.name}-vit-{size}")

    def _check_layer(self, name: str) -> None:
        if self.layer == FINAL_LAYER:
            return
        if self.family.last_layer_only:
            raise UserError(f"the teacher {name} is only read at its end; set teacher.layer=-1.")
        if not 1 <= self.layer <= len(self.network.blocks):
            raise UserError(
                f"teacher.layer is {self.layer} but {name} has the blocks 1 to {len(self.network.blocks)} "
                "(-1 is its output)."
            )

    def load(self, path: Path) -> None:
        """Fill the network from a file, or a folder of .safetensors files; every key must be accounted for."""
        weights = network_weights(read_parts(path), self.family, source=str(path))
        weights = self.family.fit(weights, self.network)
        own = self.network.state_dict()
        shaped = {key: _as_ours(value, own.get(key)) for key, value in weights.items()}
        load_exactly(self.network, shaped, source=f"{path} (weights of the teacher {self.family.name})")

    @torch.no_grad()
    def features(self, images_u8: Tensor) -> Tensor:
        """(B, 3, R, R) uint8 -> (B, grid^2, dim) float32, for images of the size the teacher was made for."""
        pixels = preprocess(images_u8, self.family.name)
        patches = patch_features(
            self.network.forward_features,
            list(self.network.blocks),
            pixels,
            layer=self.layer,
            num_special=self.num_special,
        )
        return patches.float()


def variant_of(family: Family, size: str) -> Variant:
    """A size of a family. Raises UserError naming the sizes there are."""
    if size not in family.variants:
        near = difflib.get_close_matches(size, family.variants, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        known = ", ".join(f"{family.name}-vit-{known}" for known in family.variants)
        raise UserError(f"the teacher {family.name} has no size {size!r}{hint} (there are {known})")
    return family.variants[size]


def read_parts(path: Path) -> Any:
    """The content of a weights file, or of all .safetensors files of a hub folder together."""
    if not path.is_dir():
        return read_weights(path)
    files = sorted(path.glob("*.safetensors"))
    if not files:
        raise UserError(f"{path} holds no .safetensors file; give the weights file itself, or a hub model's folder.")
    together: StateDict = {}
    for file in files:
        together.update(read_weights(file))
    return together


def network_weights(content: Any, family: Family, *, source: str) -> StateDict:
    """One network's weights under our names, out of what a file holds."""
    if isinstance(content, Mapping):
        content = next((content[part] for part in family.parts if part in content), content)
    if not is_state_dict(content):
        found = ", ".join(map(str, list(content)[:8])) if isinstance(content, Mapping) else type(content).__name__
        raise UserError(
            f"{source} holds no weights of a {family.name} teacher (found: {found}); give the file that its authors "
            "publish, or a state dict"
        )
    weights = {_without(key, family.prefixes): value for key, value in content.items()}
    layout = next((layout for layout in family.layouts if layout.marker in weights), None)
    return layout.keys.rename(weights)[0] if layout else weights


def _without(key: str, prefixes: tuple[str, ...]) -> str:
    for prefix in prefixes:
        key = key.removeprefix(prefix)
    return key


def _as_ours(theirs: Tensor, ours: Tensor | None) -> Tensor:
    """Axes of length 1 are added or left out where that alone makes the shapes agree (a class token, one frame)."""
    if ours is not None and theirs.squeeze().shape == ours.squeeze().shape:
        return theirs.reshape(ours.shape)
    return theirs
