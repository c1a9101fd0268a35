"""IBQ: index backpropagation quantisation, after SEED-Voken (arXiv:2412.02692).

The code with the largest inner product is chosen, and the gradient flows back through the softmax over all codes
instead of skipping the quantiser: every code is trained in every step. Shapes as in `base`: N tokens, K codes, C code
dimension.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gear.ranges import Count, Weight
from gear.tokenizers.base import (
    Code,
    Quantizer,
    QuantizerLosses,
    Tokenizer,
    TokenizerConfig,
    require,
    require_widths,
    to_map,
    to_rows,
)
from gear.tokenizers.blocks import AttnBlock, Conv1x1, Level, ResBlock, conv3x3, group_norm
from gear.tokenizers.distances import Distances
from gear.tokenizers.entropy import entropy_terms
from gear.tokenizers.family import GEAR_ENTROPY_RATIO, Family, State, count_of, multiples_of, shape_of, width_of
from gear.tokenizers.fused import norm_silu_conv


@dataclass(frozen=True, kw_only=True)
class IBQConfig(TokenizerConfig):
    """IBQ-16 by default: 16 x 16 pixels per token, 16,384 codes of 256 dimensions."""

    family: ClassVar[str] = "ibq"
    loss_fields: ClassVar[frozenset[str]] = TokenizerConfig.loss_fields | {
        "use_entropy_loss",
        "entropy_loss_temperature",
        "sample_minimization_weight",
        "batch_maximization_weight",
    }

    codebook_size: int = 16_384
    """K, the entries of the codebook."""
    codebook_embed_dim: int = 256
    """C, the dimension of an entry."""
    z_channels: int = 256
    """Channels between the backbone and the 1x1 convolutions around the quantiser."""
    num_res_blocks: int = 4
    """Residual blocks per encoder level; a decoder level has one more."""
    ch_mult: tuple[int, ...] = (1, 1, 2, 2, 4)
    """Width of each level in units of ch, highest resolution first; every level but the last halves the map."""
    resolution: int = 256
    """Nominal image size, from which attn_resolutions finds its levels; images of other sizes work too."""
    attn_resolutions: tuple[Count, ...] = (16,)
    """Nominal map sizes at which every residual block is followed by attention."""
    cosine_similarity: bool = False
    """Choose by cosine instead of inner product; the code vectors themselves are not normalised."""
    use_entropy_loss: bool = True
    """Whether there is an entropy regulariser at all."""
    entropy_loss_ratio: float = 1.0
    entropy_loss_temperature: float = 0.01
    """Temperature of the assignments inside the entropy regulariser only."""
    sample_minimization_weight: Weight = 1.0
    """Weight of a token's own entropy, which is to be small."""
    batch_maximization_weight: Weight = 1.0
    """Weight of the entropy of the mean assignment, which is to be large."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("codebook_size", "codebook_embed_dim", "z_channels", "resolution", "entropy_loss_temperature"):
            require(getattr(self, name) > 0, f"{name} must be positive, got {getattr(self, name)}")
        require(len(self.ch_mult) > 0, "ch_mult needs at least one level")
        require_widths(self.ch, self.ch_mult)

    @property
    def num_codes(self) -> int:
        return self.codebook_size

    @property
    def code_dim(self) -> int:
        return self.codebook_embed_dim

    @property
    def downsample(self) -> int:
        return 2 ** (len(self.ch_mult) - 1)

    def attention_at(self, level: int) -> bool:
        """Whether level i, of nominal size resolution / 2^i, has attention."""
        return self.resolution // 2**level in self.attn_resolutions


class Middle(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block_1 = ResBlock(channels, channels)
        self.attn_1 = AttnBlock(channels)
        self.block_2 = ResBlock(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(x)))


class Encoder(nn.Module):
    """pixels (B, 3, H, W) -> features (B, z_channels, h, w)."""

    def __init__(self, config: IBQConfig) -> None:
        super().__init__()
        widths = [config.ch * m for m in config.ch_mult]
        last = len(widths) - 1
        self.conv_in = conv3x3(3, config.ch)
        self.down = nn.Sequential(
            *(
                Level(
                    "block",
                    before,
                    after,
                    num_blocks=config.num_res_blocks,
                    attention=config.attention_at(i),
                    downsample=i < last,
                )
                for i, (before, after) in enumerate(pairwise([config.ch, *widths]))
            )
        )
        self.mid = Middle(widths[-1])
        self.norm_out = group_norm(widths[-1])
        self.conv_out = conv3x3(widths[-1], config.z_channels)

    def forward(self, pixels: Tensor) -> Tensor:
        h = self.mid(self.down(self.conv_in(pixels)))
        return norm_silu_conv(h, self.norm_out, self.conv_out)


class Decoder(nn.Module):
    """features (B, z_channels, h, w) -> pixels (B, 3, H, W); `up` is numbered by level and runs from the last."""

    def __init__(self, config: IBQConfig) -> None:
        super().__init__()
        widths = [config.ch * m for m in config.ch_mult]
        entering = [*widths[1:], widths[-1]]  # the width in which level i receives its features
        self.conv_in = conv3x3(config.z_channels, widths[-1])
        self.mid = Middle(widths[-1])
        self.up = nn.ModuleList(
            Level(
                "block",
                before,
                after,
                num_blocks=config.num_res_blocks + 1,
                attention=config.attention_at(i),
                upsample=i > 0,
            )
            for i, (before, after) in enumerate(zip(entering, widths, strict=True))
        )
        self.norm_out = group_norm(widths[0])
        self.conv_out = conv3x3(widths[0], 3)

    def forward(self, features: Tensor) -> Tensor:
        h = self.mid(self.conv_in(features))
        for level in reversed(self.up):
            h = level(h)
        return norm_silu_conv(h, self.norm_out, self.conv_out)


class IndexQuantizer(Quantizer):
    """Hard one-hot in the forward pass, softmax over the whole codebook in the backward pass."""

    def __init__(self, config: IBQConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.codebook_size, config.codebook_embed_dim)  # standard normal

    def forward(self, pre_quant: Tensor) -> Code:
        z = to_rows(pre_quant)  # (N, C)
        distances = self._distances(z)
        code_ids = distances.nearest()
        hard = self.lookup(code_ids)  # (N, C); gradient to the chosen entries
        z_q = hard + self._softmax_path(distances) if torch.is_grad_enabled() else hard
        return Code(
            quant=to_map(z_q, like=pre_quant).contiguous(),
            code_ids=code_ids,
            distances=distances,
            losses=self._losses(z, z_q, hard, distances) if self.training else QuantizerLosses(),
        )

    def lookup(self, code_ids: Tensor) -> Tensor:
        return self.embedding(code_ids)

    def _distances(self, z: Tensor) -> Distances:
        codebook = self.embedding.weight
        if self.config.cosine_similarity:
            z, codebook = F.normalize(z, dim=1), F.normalize(codebook, dim=1)
        return Distances(queries=z, codes=codebook)

    def _softmax_path(self, distances: Distances) -> Tensor:
        """Zeros (N, C) with the gradient of the soft assignment to the encoder and to every code.

        It reads the codebook without its gradient, as a product with a one-hot would: only the chosen entries get the
        direct gradient.
        """
        soft = distances.posterior(1.0).read(self.embedding.weight.detach())
        return soft - soft.detach()

    def _losses(self, z: Tensor, z_q: Tensor, hard: Tensor, distances: Distances) -> QuantizerLosses:
        config = self.config
        double = F.mse_loss(z_q, z)  # the "double quantisation" term: nothing is detached
        commit = F.mse_loss(z, hard.detach())
        codebook = F.mse_loss(hard, z.detach())
        entropy = None
        if config.use_entropy_loss:
            entropy = entropy_terms(
                distances,
                ratio=config.entropy_loss_ratio,
                temperature=config.entropy_loss_temperature,
                sample_weight=config.sample_minimization_weight,
                batch_weight=config.batch_maximization_weight,
            )
        return QuantizerLosses(vq=double + commit + config.commit_loss_beta * codebook, entropy=entropy)


class IBQTokenizer(Tokenizer):
    """The IBQ family: convolutional encoder and decoder around an IndexQuantizer."""

    def __init__(self, config: IBQConfig) -> None:
        super().__init__(
            config,
            encoder=Encoder(config),
            decoder=Decoder(config),
            quantize=IndexQuantizer(config),
            quant_conv=Conv1x1(config.z_channels, config.codebook_embed_dim),
            post_quant_conv=Conv1x1(config.codebook_embed_dim, config.z_channels),
        )


_NOMINAL = 256
"""The resolution that attention levels are counted from; it identifies levels, not image sizes."""
_LEVELS = "encoder.down.{}.block.0.conv1.weight"


def _matches(state: Mapping[str, object]) -> bool:
    return _LEVELS.format(0) in state and "quantize.embedding.weight" in state


def _read(state: State, settings: Mapping[str, Any]) -> IBQConfig:
    """Sizes from the tensors; inner products, as published, since the tensors do not show it."""
    ch = width_of(state, "encoder.conv_in.weight")
    ch_mult = multiples_of(state, _LEVELS, ch)
    codes, dim = shape_of(state, "quantize.embedding.weight")
    attention = [level for level in range(len(ch_mult)) if f"encoder.down.{level}.attn.0.q.weight" in state]
    return IBQConfig(
        ch=ch,
        ch_mult=ch_mult,
        num_res_blocks=count_of(state, "encoder.down.0.block.{}.conv1.weight"),
        resolution=_NOMINAL,
        attn_resolutions=tuple(_NOMINAL // 2**level for level in attention),
        z_channels=width_of(state, "encoder.conv_out.weight"),
        codebook_size=codes,
        codebook_embed_dim=dim,
        entropy_loss_ratio=GEAR_ENTROPY_RATIO,
    )


IBQ = Family(
    config=IBQConfig,
    build=IBQTokenizer,
    matches=_matches,
    read=_read,
    published={"IBQ-16": IBQConfig(entropy_loss_ratio=GEAR_ENTROPY_RATIO)},
    origin="IBQ",
    recorded_sizes=("codebook_size", "codebook_embed_dim"),
)
