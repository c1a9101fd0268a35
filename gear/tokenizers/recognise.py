"""Which tokenizer a state dict belongs to: family and sizes, read off the names and shapes of its tensors.

Settings that tensors do not show get the values of the published models; see each family's `read`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gear.tokenizers import FAMILIES, TOKENIZERS
from gear.tokenizers.base import TokenizerConfig
from gear.tokenizers.family import Family, State


def is_tokenizer(state: Mapping[str, object]) -> bool:
    """Whether these look like the weights of an image tokenizer; `recognise_tokenizer` checks them in detail."""
    return any(key.startswith("encoder.") for key in state) or bool(matching_families(state))


def matching_families(state: Mapping[str, object]) -> list[Family]:
    """The families that have such keys: none, one, or several that only `Family.read` can distinguish."""
    return [family for family in FAMILIES.values() if family.matches(state)]


def recognise_tokenizer(state: State, *, settings: Mapping[str, Any] | None = None) -> TokenizerConfig:
    """The configuration of the tokenizer that `state` belongs to. settings: those of its training, if known.

    Raises ValueError when it is of no known family, or, naming the key, when a tensor that shows a size is missing.
    """
    for family in matching_families(state):
        if (config := family.read(state, settings or {})) is not None:
            return config
    raise ValueError(f"its tensors belong to no known tokenizer family (known: {', '.join(FAMILIES)})")


def tokenizer_name(config: TokenizerConfig) -> str | None:
    """The published name of this architecture, or None; loss weights do not matter."""
    for name, published in TOKENIZERS.items():
        if published.architecture() == config.architecture():
            return name
    return None
