"""LFQ: a code is the sign pattern of the encoder's output, after MAGVIT-v2 (arXiv:2310.05737) and Open-MAGVIT2.

There is no learned codebook. Channel i of the encoder contributes bit i of the code id: +1 sets it, -1 clears it, so
channel 0 is the least significant bit. Shapes as in `base`: N tokens, C = log2 K channels; G groups of g = C/G bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from gear.keytable import Dropped, Rules
from gear.ranges import Weight
from gear.tokenizers.base import (
    Code,
    Quantizer,
    QuantizerLosses,
    Tokenizer,
    TokenizerConfig,
    require,
    require_widths,
    straight_through,
    to_map,
    to_rows,
)
from gear.tokenizers.distances import Distances
from gear.tokenizers.entropy import entropy_terms
from gear.tokenizers.family import GEAR_ENTROPY_RATIO, Family, State, count_of, multiples_of, width_of
from gear.tokenizers.lfq_backbone import BackboneShape, Decoder, Encoder


@dataclass(frozen=True, kw_only=True)
class SignCodeConfig(TokenizerConfig):
    """What LFQ and GLFQ share: the backbone and the weights of the entropy regulariser."""

    loss_fields: ClassVar[frozenset[str]] = TokenizerConfig.loss_fields | {
        "sample_minimization_weight",
        "batch_maximization_weight",
        "entropy_loss_temperature",
    }

    num_res_blocks: int = 4
    """Residual blocks per level and in the middle, in encoder and decoder alike."""
    ch_mult: tuple[int, ...] = (1, 1, 2, 2, 4)
    """Width of each level in units of ch, highest resolution first."""
    sample_minimization_weight: Weight = 1.0
    """Weight of a token's own entropy, which is to be small."""
    batch_maximization_weight: Weight = 1.0
    """Weight of the entropy of the mean assignment, which is to be large."""
    entropy_loss_temperature: float = 0.01
    """Temperature of the assignments inside the entropy regulariser only."""
    entropy_loss_ratio: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(len(self.ch_mult) > 0, "ch_mult needs at least one level")
        require_widths(self.ch, self.ch_mult)
        require(self.entropy_loss_temperature > 0, "entropy_loss_temperature must be positive")

    @property
    def num_halvings(self) -> int:
        """Levels that change the resolution."""
        return self.downsample.bit_length() - 1


@dataclass(frozen=True, kw_only=True)
class LFQConfig(SignCodeConfig):
    """LFQ-16 by default: 16 x 16 pixels per token, 14 bits."""

    family: ClassVar[str] = "lfq"

    codebook_size: int = 16_384
    """K; a power of two, since a code is a sign pattern of log2 K channels."""

    def __post_init__(self) -> None:
        super().__post_init__()
        size = self.codebook_size
        require(size >= 2 and size & (size - 1) == 0, f"codebook_size must be a power of two, got {size}")

    @property
    def num_codes(self) -> int:
        return self.codebook_size

    @property
    def code_dim(self) -> int:
        return self.codebook_size.bit_length() - 1

    @property
    def downsample(self) -> int:
        return 2 ** (len(self.ch_mult) - 1)


class SignQuantizer(Quantizer):
    """Quantise each channel to its sign; entropy and code ids are per group of channels."""

    mask: Tensor
    codebook: Tensor

    def __init__(self, config: SignCodeConfig) -> None:
        super().__init__()
        self.config = config
        self.group_bits = config.code_dim // config.codes_per_token
        self.reset_constants()

    def reset_constants(self) -> None:
        mask = 2 ** torch.arange(self.group_bits)
        self.register_buffer("mask", mask, persistent=False)  # (g,) int64, least significant bit first
        bits = torch.arange(2**self.group_bits)[:, None] & mask != 0
        self.register_buffer("codebook", signs(bits), persistent=False)  # (2^g, g), row k is the pattern of id k

    def forward(self, pre_quant: Tensor) -> Code:
        x = to_rows(pre_quant)  # (N, C)
        z_q = signs(x > 0).to(x.dtype)  # zero counts as -1
        bits = (x > 0).reshape(-1, self.group_bits)  # (N*G, g), token-major
        # -2 <x, c> differs from the squared distance by a term that is the same for all codes.
        distances = Distances(queries=2.0 * x.reshape(-1, self.group_bits), codes=self.codebook.to(x.dtype))
        return Code(
            quant=to_map(straight_through(x, z_q), like=pre_quant).contiguous(),
            code_ids=(bits * self.mask).sum(dim=1),
            distances=distances,
            losses=self._losses(x, z_q, distances) if self.training else QuantizerLosses(),
        )

    def lookup(self, code_ids: Tensor) -> Tensor:
        return F.embedding(code_ids, self.codebook).reshape(-1, self.config.code_dim)

    def _losses(self, x: Tensor, z_q: Tensor, distances: Distances) -> QuantizerLosses:
        config = self.config
        return QuantizerLosses(
            commit=config.commit_loss_beta * F.mse_loss(x, z_q),
            entropy=entropy_terms(
                distances,
                groups=config.codes_per_token,
                ratio=config.entropy_loss_ratio,
                temperature=config.entropy_loss_temperature,
                sample_weight=config.sample_minimization_weight,
                batch_weight=config.batch_maximization_weight,
            ),
        )


def signs(bits: Tensor) -> Tensor:
    """+1.0 where a bit is set, else -1.0."""
    return torch.where(bits, 1.0, -1.0)


class SignCodeTokenizer(Tokenizer):
    """Encoder and decoder around a SignQuantizer, which needs no convolutions around it."""

    def __init__(self, config: SignCodeConfig) -> None:
        shape = BackboneShape(
            ch=config.ch,
            ch_mult=config.ch_mult,
            num_res_blocks=config.num_res_blocks,
            code_dim=config.code_dim,
            num_halvings=config.num_halvings,
        )
        super().__init__(config, encoder=Encoder(shape), decoder=Decoder(shape), quantize=SignQuantizer(config))


class LFQTokenizer(SignCodeTokenizer):
    """The LFQ family: one sign pattern, one code id per token."""


_LEVELS = "encoder.down.{}.block.0.conv1.weight"
SIGN_CODE_KEYS: Rules = {
    "quantize.mask": Dropped("LFQ's bit values, which follow from the codebook size"),
    "quantize.codebook": Dropped("LFQ's sign patterns, which follow from the codebook size"),
}
"""The quantiser's constants in Open-MAGVIT2's files; it has no weights."""
_GROUP_BITS = 8
"""Bits of a group in the published GLFQ models, used where the number of groups is not recorded."""
_LARGEST_GROUP = 20
"""More bits than this cannot be one code id: the codebook would not fit."""


def matches_sign_code(state: Mapping[str, object]) -> bool:
    """Whether these are the keys of LFQ or GLFQ: their backbone, and a quantiser without weights."""
    quantizer = {key for key in state if key.startswith(("quantize.", "quant_conv."))}
    return _LEVELS.format(0) in state and quantizer <= SIGN_CODE_KEYS.keys()


@dataclass(frozen=True, kw_only=True)
class SignCodeSizes:
    """The sizes that the tensors of an LFQ or a GLFQ show."""

    ch: int
    ch_mult: tuple[int, ...]
    num_res_blocks: int
    bits: int
    groups: int
    """From the training's settings; else one if the bits fit a single code id, else groups of the published size."""
    halvings: int
    """Levels that halve the map."""

    @property
    def is_lfq(self) -> bool:
        """Every level but the last halves the map, and the bits make one code id."""
        return self.groups == 1 and self.halvings == len(self.ch_mult) - 1

    @property
    def backbone(self) -> dict[str, Any]:
        """The fields of a configuration that both families have."""
        return {
            "ch": self.ch,
            "ch_mult": self.ch_mult,
            "num_res_blocks": self.num_res_blocks,
            "entropy_loss_ratio": GEAR_ENTROPY_RATIO,
        }


def sign_code_sizes(state: State, settings: Mapping[str, Any]) -> SignCodeSizes:
    """The sizes of a state dict that `matches_sign_code`; ValueError naming the key that is missing."""
    ch, bits = width_of(state, "encoder.conv_in.weight"), width_of(state, "encoder.conv_out.weight")
    groups = settings.get("entropy_num_groups")
    return SignCodeSizes(
        ch=ch,
        ch_mult=multiples_of(state, _LEVELS, ch),
        num_res_blocks=count_of(state, "encoder.down.0.block.{}.conv1.weight"),
        bits=bits,
        groups=(groups if isinstance(groups, int) else 0) or (1 if bits <= _LARGEST_GROUP else bits // _GROUP_BITS),
        halvings=count_of(state, "encoder.down.{}.downsample.weight"),
    )


def _read(state: State, settings: Mapping[str, Any]) -> LFQConfig | None:
    sizes = sign_code_sizes(state, settings)
    return LFQConfig(codebook_size=2**sizes.bits, **sizes.backbone) if sizes.is_lfq else None


LFQ = Family(
    config=LFQConfig,
    build=LFQTokenizer,
    matches=matches_sign_code,
    read=_read,
    keys=SIGN_CODE_KEYS,
    published={"LFQ-16": LFQConfig(entropy_loss_ratio=GEAR_ENTROPY_RATIO)},
    origin="Open-MAGVIT2",
)
