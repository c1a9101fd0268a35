"""VQ: the nearest entry of a learned codebook, after LlamaGen (arXiv:2406.06525) and VQGAN (arXiv:2012.09841).

Released configurations compare unit vectors: encoder output and codebook rows are both normalised in every forward,
so the stored rows need not be. Shapes as in `base`: N tokens, K codes, C code dimension.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gear.keytable import Dropped
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
from gear.tokenizers.blocks import AttnBlock, Conv1x1, Level, ResBlock, conv3x3, group_norm
from gear.tokenizers.distances import Distances
from gear.tokenizers.entropy import entropy_terms
from gear.tokenizers.family import GEAR_ENTROPY_RATIO, Family, State, count_of, multiples_of, shape_of, width_of
from gear.tokenizers.fused import norm_silu_conv


@dataclass(frozen=True, kw_only=True)
class VQConfig(TokenizerConfig):
    """VQ-16 by default: 16 x 16 pixels per token, 16,384 codes of 8 dimensions."""

    family: ClassVar[str] = "vq"

    codebook_size: int = 16_384
    """K, the entries of the codebook."""
    codebook_embed_dim: int = 8
    """C, the dimension of an entry."""
    codebook_l2_norm: bool = True
    """Compare and return unit vectors."""
    encoder_ch_mult: tuple[int, ...] = (1, 1, 2, 2, 4)
    """Width of each encoder level in units of ch, highest resolution first; every level but the last halves the map."""
    decoder_ch_mult: tuple[int, ...] = (1, 1, 2, 2, 4)
    """The same for the decoder, which goes through its list from the last entry to the first."""
    z_channels: int = 256
    """Channels between the backbone and the 1x1 convolutions around the quantiser."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.codebook_size > 0 and self.codebook_embed_dim > 0,
            "codebook_size and codebook_embed_dim must be positive",
        )
        require(self.z_channels > 0, "z_channels must be positive")
        require(len(self.encoder_ch_mult) > 0, "encoder_ch_mult needs at least one level")
        require(
            len(self.encoder_ch_mult) == len(self.decoder_ch_mult),
            "encoder_ch_mult and decoder_ch_mult must have the same length, or reconstructions change size",
        )
        require_widths(self.ch, self.encoder_ch_mult + self.decoder_ch_mult)

    @property
    def num_codes(self) -> int:
        return self.codebook_size

    @property
    def code_dim(self) -> int:
        return self.codebook_embed_dim

    @property
    def downsample(self) -> int:
        return 2 ** (len(self.encoder_ch_mult) - 1)


def middle(channels: int) -> nn.Sequential:
    return nn.Sequential(ResBlock(channels, channels), AttnBlock(channels), ResBlock(channels, channels))


class Encoder(nn.Module):
    """pixels (B, 3, H, W) -> features (B, z_channels, h, w)."""

    def __init__(self, config: VQConfig) -> None:
        super().__init__()
        widths = [config.ch * m for m in config.encoder_ch_mult]
        last = len(widths) - 1
        self.conv_in = conv3x3(3, config.ch)
        self.conv_blocks = nn.Sequential(
            *(
                Level("res", before, after, num_blocks=config.num_res_blocks, attention=i == last, downsample=i < last)
                for i, (before, after) in enumerate(pairwise([config.ch, *widths]))
            )
        )
        self.mid = middle(widths[-1])
        self.norm_out = group_norm(widths[-1])
        self.conv_out = conv3x3(widths[-1], config.z_channels)

    def forward(self, pixels: Tensor) -> Tensor:
        h = self.mid(self.conv_blocks(self.conv_in(pixels)))
        return norm_silu_conv(h, self.norm_out, self.conv_out)


class Decoder(nn.Module):
    """features (B, z_channels, h, w) -> pixels (B, 3, H, W).

    `conv_blocks` are numbered as they run, lowest resolution first (the other families number them by level), and
    every level has one residual block more than the encoder's.
    """

    def __init__(self, config: VQConfig) -> None:
        super().__init__()
        widths = [config.ch * m for m in reversed(config.decoder_ch_mult)]
        last = len(widths) - 1
        self.conv_in = conv3x3(config.z_channels, widths[0])
        self.mid = middle(widths[0])
        self.conv_blocks = nn.Sequential(
            *(
                Level("res", before, after, num_blocks=config.num_res_blocks + 1, attention=j == 0, upsample=j < last)
                for j, (before, after) in enumerate(pairwise([widths[0], *widths]))
            )
        )
        self.norm_out = group_norm(widths[-1])
        self.conv_out = conv3x3(widths[-1], 3)

    def forward(self, features: Tensor) -> Tensor:
        h = self.conv_blocks(self.mid(self.conv_in(features)))
        return norm_silu_conv(h, self.norm_out, self.conv_out)


class VectorQuantizer(Quantizer):
    """Nearest codebook entry by squared distance, with a straight-through gradient to the encoder."""

    def __init__(self, config: VQConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.codebook_size, config.codebook_embed_dim)
        nn.init.uniform_(self.embedding.weight, -1.0 / config.codebook_size, 1.0 / config.codebook_size)
        if config.codebook_l2_norm:
            with torch.no_grad():
                self.embedding.weight.copy_(F.normalize(self.embedding.weight, dim=-1))

    def forward(self, pre_quant: Tensor) -> Code:
        z = self._normalise(to_rows(pre_quant))  # (N, C)
        codebook = self._codebook()  # (K, C)
        distances = Distances(queries=z, codes=codebook, squared=True)
        code_ids = distances.nearest()
        z_q = F.embedding(code_ids, codebook)
        return Code(
            quant=to_map(straight_through(z, z_q), like=pre_quant).contiguous(),
            code_ids=code_ids,
            distances=distances,
            losses=self._losses(z, z_q, distances) if self.training else QuantizerLosses(),
        )

    def lookup(self, code_ids: Tensor) -> Tensor:
        return F.embedding(code_ids, self._codebook())

    def _losses(self, z: Tensor, z_q: Tensor, distances: Distances) -> QuantizerLosses:
        return QuantizerLosses(
            vq=F.mse_loss(z_q, z.detach()),
            commit=self.config.commit_loss_beta * F.mse_loss(z, z_q.detach()),
            entropy=entropy_terms(distances, ratio=self.config.entropy_loss_ratio),
        )

    def _codebook(self) -> Tensor:
        return self._normalise(self.embedding.weight)

    def _normalise(self, rows: Tensor) -> Tensor:
        return F.normalize(rows, dim=-1) if self.config.codebook_l2_norm else rows


class VQTokenizer(Tokenizer):
    """The VQ family: convolutional encoder and decoder around a VectorQuantizer."""

    def __init__(self, config: VQConfig) -> None:
        super().__init__(
            config,
            encoder=Encoder(config),
            decoder=Decoder(config),
            quantize=VectorQuantizer(config),
            quant_conv=Conv1x1(config.z_channels, config.codebook_embed_dim),
            post_quant_conv=Conv1x1(config.codebook_embed_dim, config.z_channels),
        )


_ENCODER_LEVELS = "encoder.conv_blocks.{}.res.0.conv1.weight"


def _matches(state: Mapping[str, object]) -> bool:
    return _ENCODER_LEVELS.format(0) in state


def _read(state: State, settings: Mapping[str, Any]) -> VQConfig:
    """Sizes from the tensors; unit vectors, as published, since the tensors do not show it."""
    ch = width_of(state, "encoder.conv_in.weight")
    decoder = multiples_of(state, "decoder.conv_blocks.{}.res.0.conv1.weight", ch)
    codes, dim = shape_of(state, "quantize.embedding.weight")
    return VQConfig(
        ch=ch,
        num_res_blocks=count_of(state, "encoder.conv_blocks.0.res.{}.conv1.weight"),
        encoder_ch_mult=multiples_of(state, _ENCODER_LEVELS, ch),
        decoder_ch_mult=decoder[::-1],  # numbered as they run, lowest resolution first
        z_channels=width_of(state, "encoder.conv_out.weight"),
        codebook_size=codes,
        codebook_embed_dim=dim,
        entropy_loss_ratio=GEAR_ENTROPY_RATIO,
    )


VQ = Family(
    config=VQConfig,
    build=VQTokenizer,
    matches=_matches,
    read=_read,
    keys={"quantize.codebook_used": Dropped("LlamaGen's window of recently used codes")},
    published={
        "VQ-16": VQConfig(entropy_loss_ratio=GEAR_ENTROPY_RATIO),
        "VQ-8": VQConfig(
            encoder_ch_mult=(1, 2, 2, 4), decoder_ch_mult=(1, 2, 2, 4), entropy_loss_ratio=GEAR_ENTROPY_RATIO
        ),
    },
    origin="LlamaGen",
    recorded_sizes=("codebook_size", "codebook_embed_dim"),
)
