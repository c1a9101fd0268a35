"""Image tokenizers: pixels to codes and back. `build_tokenizer(TOKENIZERS["VQ-16"])` makes one.

Everything that differs between families is in the `Family` that each file defines; the list below is the only
place that names them all. To add a family, see docs/add-a-tokenizer.md.
"""

from __future__ import annotations

from gear.tokenizers.base import Code, EntropyTerms, QuantizerLosses, Tokenizer, TokenizerConfig
from gear.tokenizers.family import Family
from gear.tokenizers.glfq import GLFQ, GLFQConfig, GLFQTokenizer
from gear.tokenizers.ibq import IBQ, IBQConfig, IBQTokenizer
from gear.tokenizers.lfq import LFQ, LFQConfig, LFQTokenizer
from gear.tokenizers.vq import VQ, VQConfig, VQTokenizer

FAMILIES: dict[str, Family] = {}
"""Every family by its name in checkpoints and YAML."""

TOKENIZERS: dict[str, TokenizerConfig] = {}
"""The published architectures by name."""


def register(family: Family) -> None:
    """Make a family known to configurations, checkpoints and messages. ValueError: its name is taken."""
    if family.name in FAMILIES:
        raise ValueError(f"a tokenizer family named {family.name!r} already exists; give yours another name")
    FAMILIES[family.name] = family
    TOKENIZERS.update(family.published)


for _family in (VQ, LFQ, GLFQ, IBQ):
    register(_family)


def build_tokenizer(config: TokenizerConfig) -> Tokenizer:
    """A freshly initialised tokenizer of the family that `config` describes."""
    family = FAMILIES.get(getattr(config, "family", ""))
    if family is None or not isinstance(config, family.config):
        raise TypeError(f"no tokenizer can be built from {type(config).__name__}; use one of {', '.join(FAMILIES)}")
    return family.build(config)


__all__ = [
    "FAMILIES",
    "TOKENIZERS",
    "Code",
    "EntropyTerms",
    "Family",
    "GLFQConfig",
    "GLFQTokenizer",
    "IBQConfig",
    "IBQTokenizer",
    "LFQConfig",
    "LFQTokenizer",
    "QuantizerLosses",
    "Tokenizer",
    "TokenizerConfig",
    "VQConfig",
    "VQTokenizer",
    "build_tokenizer",
    "register",
]
