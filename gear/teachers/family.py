"""What a family of published vision transformers brings: its sizes, its network, and its weights' layouts.

None of the published files could be opened while this was written: names and shapes are those of their authors' code,
and files made up after them give what the independent models of the transformers library compute.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from gear.foreign import StateDict
from gear.keytable import KeyTable


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
    """Arguments in which the architecture differs from that."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One way in which the weights are published."""

    marker: str
    """A key that tells it from the others."""
    keys: KeyTable
    """Keys that both sides share are left out."""


def _unchanged(weights: StateDict, network: nn.Module) -> StateDict:
    return weights


@dataclass(frozen=True, kw_only=True)
class Family:
    """Published vision transformers that are read the same way; its input is described in `preprocess.INPUT_RULES`."""

    name: str
    """First part of a teacher's name, as in dinov2-vit-b."""
    variants: Mapping[str, Variant]
    """By the last part of the name."""
    build: Callable[[Variant, int], nn.Module]
    """The network for an input side in pixels: has `blocks` and `forward_features(x) -> (B, S + g^2, d)`."""
    layouts: tuple[Layout, ...]
    """The layouts in which its weights are published; the network's own keys are always understood."""
    parts: tuple[str, ...] = ()
    """Keys under which a file may hold the network, best first."""
    prefixes: tuple[str, ...] = ()
    """Wrappers' prefixes that are taken off every key."""
    fit: Callable[[StateDict, nn.Module], StateDict] = _unchanged
    """Last step from the published weights to the network, for what renaming alone cannot do."""
    last_layer_only: bool = False
    """No intermediate layer can be asked for."""


def timm_vit(variant: Variant, side: int, **arguments: Any) -> nn.Module:
    """timm's architecture without its head, for square inputs of `side` pixels, with random weights."""
    import timm

    changes = {**arguments, **variant.changes}
    network: nn.Module = timm.create_model(variant.model, pretrained=False, num_classes=0, img_size=side, **changes)
    return network
