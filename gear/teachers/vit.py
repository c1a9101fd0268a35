"""Published vision transformers as teachers: preprocessing, one layer's patches, third-party weights.

None of the published files could be opened while this was written: names and shapes follow their authors' code, and
synthetic files of that form give the same results as the independent models of the transformers library.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gear.foreign import StateDict, is_state_dict, load_exactly, read_weights
from gear.keytable import KeyTable
from gear.teachers.base import Teacher
from gear.teachers.family import Family
from gear.teachers.layers import FINAL_LAYER, patch_features
from gear.teachers.preprocess import InputRule, preprocess
from harness.contract.errors import MissingAsset, UserError
from harness.contract.walk import files_in


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One size of a family."""

    dim: int
    """Width d of its patches."""
    weights: str | None
    """Where the published weights are (gear.assets), `{image_size}` to be filled in; None: no public single file."""
    model: str = ""
    """timm's name of the architecture."""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of `timm.create_model` in which the architecture differs from that."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One key layout in which the weights are published."""

    marker: str
    """A key that distinguishes it from the others."""
    keys: KeyTable
    """Keys that both sides share are left out."""


def _unchanged(weights: StateDict, network: nn.Module) -> StateDict:
    return weights


@dataclass(frozen=True, kw_only=True)
class ViTFamily(Family):
    """Published vision transformers whose features are read the same way. Its teachers are named <name>-vit-<size>."""

    name: str
    input: InputRule
    """How it preprocesses its images."""
    variants: Mapping[str, Variant]
    """By the last part of the name."""
    network: Callable[[Variant, int], nn.Module]
    """The network for an input side in pixels: has `blocks` and `forward_features(x) -> (B, S + g^2, d)`."""
    layouts: tuple[Layout, ...]
    """The layouts in which its weights are published; the network's own keys are always accepted."""
    parts: tuple[str, ...] = ()
    """Keys under which a file may hold the network, preferred ones first."""
    prefixes: tuple[str, ...] = ()
    """Wrappers' prefixes, removed from every key."""
    fit: Callable[[StateDict, nn.Module], StateDict] = _unchanged
    """Last step from the published weights to the network, for what renaming alone cannot do."""
    last_layer_only: bool = False
    """Whether only the network's output can be used, not an intermediate layer."""

    @property
    def image_sizes(self) -> tuple[int, ...]:
        return self.input.image_sizes

    def teachers(self) -> list[str]:
        return [f"{self.name}-vit-{size}" for size in self.variants]

    def weights(self, teacher: str, image_size: int) -> str:
        public = self.variants[_size(teacher)].weights
        if public is None:
            raise MissingAsset(
                f"the teacher {teacher} has no single public file; set teacher.weights to its file or folder."
            )
        return public.format(image_size=image_size)

    def build(self, teacher: str, *, image_size: int, grid: int, layer: int, weights: Path | None) -> ViTTeacher:
        built = ViTTeacher(self, _size(teacher), image_size, layer=layer)
        if weights is not None:
            built.load(weights)
        return built


def timm_vit(variant: Variant, side: int, **arguments: Any) -> nn.Module:
    """timm's architecture without its head, for square inputs of `side` pixels, with random weights."""
    import timm

    changes = {**arguments, **variant.changes}
    network: nn.Module = timm.create_model(variant.model, pretrained=False, num_classes=0, img_size=side, **changes)
    return network


class ViTTeacher(Teacher):
    """Patches of one layer of a frozen vision transformer, with random weights until `load`."""

    def __init__(self, family: ViTFamily, size: str, image_size: int, *, layer: int = FINAL_LAYER) -> None:
        """size: last part of the name. layer: FINAL_LAYER, or n for the output of block n (from 1) before the norm.

        Raises UserError: it has no such layer.
        """
        super().__init__()
        self.family, self.variant, self.layer = family, family.variants[size], layer
        rule = family.input
        side = rule.side(image_size)
        self.dim, self.grid, self.num_special = self.variant.dim, side // rule.patch, rule.num_special
        self.network: Any = family.network(self.variant, side).eval().requires_grad_(False)
        self._check_layer(f"{family.name}-vit-{size}")

    def _check_layer(self, name: str) -> None:
        if self.layer == FINAL_LAYER:
            return
        if self.family.last_layer_only:
            raise UserError(f"the teacher {name} gives its output only, no inner layer; set teacher.layer=-1.")
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
        pixels = preprocess(images_u8, self.family.input)
        patches = patch_features(
            self.network.forward_features,
            list(self.network.blocks),
            pixels,
            layer=self.layer,
            num_special=self.num_special,
        )
        return patches.float()


def read_parts(path: Path) -> Any:
    """The content of a weights file, or of all .safetensors files of a hub folder together."""
    if not path.is_dir():
        return read_weights(path)
    files = files_in(path, ".safetensors")
    if not files:
        raise UserError(f"{path} holds no .safetensors file; give the weights file itself, or a hub model's folder.")
    together: StateDict = {}
    for file in files:
        together.update(read_weights(file))
    return together


def network_weights(content: Any, family: ViTFamily, *, source: str) -> StateDict:
    """One network's weights under our names, from the content of a file."""
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
    """Axes of length 1 are added or removed where that alone makes the shapes match (a class token, one frame)."""
    if ours is not None and theirs.squeeze().shape == ours.squeeze().shape:
        return theirs.reshape(ours.shape)
    return theirs


def _size(teacher: str) -> str:
    """The size in `<family>-vit-<size>`."""
    return teacher.rpartition("-")[2]
