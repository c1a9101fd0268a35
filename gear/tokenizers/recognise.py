"""Which tokenizer a state dict belongs to: family and sizes, read off the names and shapes of its tensors.

What tensors do not show takes the value of the published models: unit vectors in VQ, inner products in IBQ, groups of
8 bits in GLFQ.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields

from torch import Tensor

from gear.tokenizers import TOKENIZERS
from gear.tokenizers.base import TokenizerConfig
from gear.tokenizers.glfq import GLFQConfig
from gear.tokenizers.ibq import IBQConfig
from gear.tokenizers.lfq import LFQConfig
from gear.tokenizers.vq import VQConfig

State = Mapping[str, Tensor]

_GROUP_BITS = 8
_LARGEST_GROUP = 20
"""More bits than this cannot be one code id: the codebook would not fit."""
_NOMINAL = 256
"""The resolution that IBQ's attention levels are counted from; it names levels, not image sizes."""
_ENTROPY = TOKENIZERS["VQ-16"].entropy_loss_ratio
"""A loss weight, so in no tensor: the one GEAR trains with."""


def is_tokenizer(state: Mapping[str, object]) -> bool:
    """Whether these look like the weights of an image tokenizer; `recognise_tokenizer` then looks closer."""
    return any(key.startswith("encoder.") for key in state)


def recognise_tokenizer(state: State, *, num_codebooks: int | None = None) -> TokenizerConfig:
    """The configuration of the tokenizer that `state` fills. num_codebooks: groups of a GLFQ, where they are known.

    Raises ValueError, naming the key, when a tensor that tells a size is missing or has none of a known family.
    """
    if "encoder.conv_blocks.0.res.0.conv1.weight" in state:
        return _vq(state)
    if "quantize.embedding.weight" in state:
        return _ibq(state)
    return _lfq(state, num_codebooks)


def tokenizer_name(config: TokenizerConfig) -> str | None:
    """The published name of this architecture, or None; loss weights do not matter."""
    for name, published in TOKENIZERS.items():
        if type(published) is type(config) and _architecture(published) == _architecture(config):
            return name
    return None


def _architecture(config: TokenizerConfig) -> dict[str, object]:
    trained = ("_ratio", "_beta", "_weight", "_temperature", "use_entropy_loss")
    return {field.name: getattr(config, field.name) for field in fields(config) if not field.name.endswith(trained)}


def _vq(state: State) -> VQConfig:
    ch = _width(state, "encoder.conv_in.weight")
    decoder = _multiples(state, "decoder.conv_blocks.{}.res.0.conv1.weight", ch)
    codes, dim = _shape(state, "quantize.embedding.weight")
    return VQConfig(
        ch=ch,
        num_res_blocks=_count(state, "encoder.conv_blocks.0.res.{}.conv1.weight"),
        encoder_ch_mult=_multiples(state, "encoder.conv_blocks.{}.res.0.conv1.weight", ch),
        decoder_ch_mult=decoder[::-1],  # numbered as they run, lowest resolution first
        z_channels=_width(state, "encoder.conv_out.weight"),
        codebook_size=codes,
        codebook_embed_dim=dim,
        entropy_loss_ratio=_ENTROPY,
    )


def _ibq(state: State) -> IBQConfig:
    ch = _width(state, "encoder.conv_in.weight")
    ch_mult = _multiples(state, "encoder.down.{}.block.0.conv1.weight", ch)
    codes, dim = _shape(state, "quantize.embedding.weight")
    attention = [level for level in range(len(ch_mult)) if f"encoder.down.{level}.attn.0.q.weight" in state]
    return IBQConfig(
        ch=ch,
        ch_mult=ch_mult,
        num_res_blocks=_count(state, "encoder.down.0.block.{}.conv1.weight"),
        resolution=_NOMINAL,
        attn_resolutions=tuple(_NOMINAL // 2**level for level in attention),
        z_channels=_width(state, "encoder.conv_out.weight"),
        codebook_size=codes,
        codebook_embed_dim=dim,
        entropy_loss_ratio=_ENTROPY,
    )


def _lfq(state: State, num_codebooks: int | None) -> LFQConfig | GLFQConfig:
    """LFQ where every level but the last halves the map and the bits make one id; GLFQ otherwise."""
    ch, bits = _width(state, "encoder.conv_in.weight"), _width(state, "encoder.conv_out.weight")
    ch_mult = _multiples(state, "encoder.down.{}.block.0.conv1.weight", ch)
    num_res_blocks = _count(state, "encoder.down.0.block.{}.conv1.weight")
    halvings = _count(state, "encoder.down.{}.downsample.weight")
    groups = num_codebooks or (1 if bits <= _LARGEST_GROUP else bits // _GROUP_BITS)
    if groups == 1 and halvings == len(ch_mult) - 1:
        return LFQConfig(
            ch=ch,
            ch_mult=ch_mult,
            num_res_blocks=num_res_blocks,
            codebook_size=2**bits,
            entropy_loss_ratio=_ENTROPY,
        )
    return GLFQConfig(
        ch=ch,
        ch_mult=ch_mult,
        num_res_blocks=num_res_blocks,
        codebook_embed_dim=bits,
        num_codebooks=groups,
        downsample=2**halvings,
        entropy_loss_ratio=_ENTROPY,
    )


def _shape(state: State, key: str) -> tuple[int, ...]:
    if key not in state:
        raise ValueError(f"it is no known tokenizer family: {key} is missing")
    return tuple(state[key].shape)


def _width(state: State, key: str) -> int:
    """Output channels of a convolution."""
    return _shape(state, key)[0]


def _count(state: State, pattern: str) -> int:
    """How many consecutive numbers from 0 the keys `pattern` have."""
    known = re.compile(re.escape(pattern).replace(r"\{\}", r"(\d+)"))
    numbers = {int(match[1]) for key in state if (match := known.fullmatch(key))}
    return next(number for number in range(len(numbers) + 1) if number not in numbers)


def _multiples(state: State, pattern: str, ch: int) -> tuple[int, ...]:
    """Width of every level in units of `ch`."""
    widths = [_width(state, pattern.format(level)) for level in range(_count(state, pattern))]
    if not widths or any(width % ch for width in widths):
        raise ValueError(f"it is no known tokenizer family: the levels {pattern.format('*')} have widths {widths}")
    return tuple(width // ch for width in widths)
