"""GLFQ: LFQ with the bits of a token in groups, each with its own code id and entropy regulariser.

32 bits would need an entropy over 2^32 codes; four groups of 8 need four over 256. A token then has several ids, which
no AR model here can model; with one group (LFQ-8) it is an LFQ with a selectable downsample factor.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from gear.tokenizers.base import require
from gear.tokenizers.family import GEAR_ENTROPY_RATIO, Family, State
from gear.tokenizers.lfq import (
    SIGN_CODE_KEYS,
    SignCodeConfig,
    SignCodeTokenizer,
    matches_sign_code,
    sign_code_sizes,
)


@dataclass(frozen=True, kw_only=True)
class GLFQConfig(SignCodeConfig):
    """GLFQ-16 by default: 16 x 16 pixels per token, 32 bits in 4 groups."""

    family: ClassVar[str] = "glfq"

    codebook_embed_dim: int = 32
    """C, the bits of a token."""
    num_codebooks: int = 4
    """Groups the bits are divided into, contiguous and equal."""
    downsample: int = 16
    """Pixels along one side of a token; levels beyond log2 of it keep their resolution."""

    def __post_init__(self) -> None:
        super().__post_init__()
        bits, groups, factor = self.codebook_embed_dim, self.num_codebooks, self.downsample
        require(bits > 0 and groups > 0, "codebook_embed_dim and num_codebooks must be positive")
        require(bits % groups == 0, f"{bits} bits cannot be divided into {groups} equal groups; change num_codebooks")
        require(bits // groups <= 20, f"groups of {bits // groups} bits are too large; raise num_codebooks")
        largest = 2 ** (len(self.ch_mult) - 1)
        require(
            2 <= factor <= largest and factor & (factor - 1) == 0,
            f"downsample must be a power of two from 2 to {largest} with {len(self.ch_mult)} levels, got {factor}",
        )

    @property
    def num_codes(self) -> int:
        return 2 ** (self.codebook_embed_dim // self.num_codebooks)

    @property
    def code_dim(self) -> int:
        return self.codebook_embed_dim

    @property
    def codes_per_token(self) -> int:
        return self.num_codebooks


class GLFQTokenizer(SignCodeTokenizer):
    """The GLFQ family: one sign pattern per token, one code id per group of its bits."""


def _read(state: State, settings: Mapping[str, Any]) -> GLFQConfig | None:
    sizes = sign_code_sizes(state, settings)
    if sizes.is_lfq:
        return None
    groups: dict[str, Any] = {"codebook_embed_dim": sizes.bits, "num_codebooks": sizes.groups}
    return GLFQConfig(downsample=2**sizes.halvings, **groups, **sizes.backbone)


GLFQ = Family(
    config=GLFQConfig,
    build=GLFQTokenizer,
    matches=matches_sign_code,
    read=_read,
    keys=SIGN_CODE_KEYS,
    published={
        "LFQ-8": GLFQConfig(codebook_embed_dim=8, num_codebooks=1, downsample=8, entropy_loss_ratio=GEAR_ENTROPY_RATIO),
        "GLFQ-16": GLFQConfig(entropy_loss_ratio=GEAR_ENTROPY_RATIO),
    },
    origin="Open-MAGVIT2",
    codes_of="lfq",
)
