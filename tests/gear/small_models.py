"""Small models of every family and kind, and their checkpoint contents."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from gear.align import Projectors
from gear.ar import ARConfig, TextARConfig
from gear.ar.checkpoints import build_ar
from gear.config import RunConfig
from gear.losses import PatchDiscriminator
from gear.tokenizers import GLFQConfig, IBQConfig, LFQConfig, TokenizerConfig, VQConfig, build_tokenizer
from tests.gear import tiny

TOKENIZERS: dict[str, TokenizerConfig] = {
    "vq": VQConfig(
        ch=32,
        num_res_blocks=1,
        encoder_ch_mult=(1, 2),
        decoder_ch_mult=(1, 1),
        z_channels=16,
        codebook_size=64,
        codebook_embed_dim=4,
        entropy_loss_ratio=0.05,
    ),
    "lfq": LFQConfig(ch=32, num_res_blocks=1, ch_mult=(1, 2), codebook_size=64, entropy_loss_ratio=0.05),
    "glfq": GLFQConfig(
        ch=32, num_res_blocks=2, ch_mult=(1, 1, 1), codebook_embed_dim=24, num_codebooks=3, downsample=2,
        entropy_loss_ratio=0.05,
    ),
    "ibq": IBQConfig(
        ch=32, num_res_blocks=1, ch_mult=(1, 1), codebook_size=64, codebook_embed_dim=8, z_channels=16,
        attn_resolutions=(128,), entropy_loss_ratio=0.05,
    ),
}  # fmt: skip

_AR = {"dim": 16, "n_layer": 3, "n_head": 2, "multiple_of": 8, "vocab_size": 64, "block_size": 16}
ARS = {
    "c2i": ARConfig(**_AR, num_classes=3),
    "t2i": TextARConfig(**_AR, cls_token_num=5, caption_dim=12, text_attn="prefix"),
}


def weights(config: Any, seed: int) -> dict[str, torch.Tensor]:
    """A state dict of random numbers for a tokenizer's or an AR model's configuration."""
    module = build_tokenizer(config) if isinstance(config, TokenizerConfig) else build_ar(config)
    generator = torch.Generator().manual_seed(seed)
    return {
        key: torch.randn(value.shape, generator=generator, dtype=value.dtype)
        for key, value in module.state_dict().items()
    }


def gear_content(family: str = "vq", kind: str = "c2i") -> dict[str, Any]:
    """A file of the reference's end-to-end stage."""
    tokenizer, ar = TOKENIZERS[family], ARS[kind]
    null = {"features": torch.randn(1, 5, 12), "mask": torch.zeros(1, 5, dtype=torch.int64)}
    args = {"image_size": 4 * tokenizer.downsample, "downsample_ratio": tokenizer.downsample, "vq_model": "VQ-16"}
    extra = {"null_caption": null} if kind == "t2i" else {}
    return {
        **extra,
        "vq": weights(tokenizer, 1),
        "vq_ema": weights(tokenizer, 2),
        "ar": weights(ar, 3),
        "ema": weights(ar, 4),
        "projectors": Projectors(16, 8, [5]).state_dict(),
        "discriminator": PatchDiscriminator(ndf=4, n_layers=1).state_dict(),
        "opt_ar": {"state": {0: {"exp_avg": torch.zeros(2)}}},
        "args": args,
        "steps": 12,
    }


def preset(family: str = "vq", kind: str = "c2i") -> RunConfig:
    """The run that `gear_content` would come from."""
    config = tiny.config()
    data = dataclasses.replace(config.data, image_size=4 * TOKENIZERS[family].downsample)
    return dataclasses.replace(config, tokenizer=TOKENIZERS[family], ar=ARS[kind], data=data)
