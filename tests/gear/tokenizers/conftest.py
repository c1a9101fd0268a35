"""Tokenizers small enough to run in milliseconds, one of every family."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from gear.tokenizers import GLFQConfig, IBQConfig, LFQConfig, Tokenizer, TokenizerConfig, VQConfig, build_tokenizer

TINY: dict[str, TokenizerConfig] = {
    "vq": VQConfig(
        ch=32,
        num_res_blocks=1,
        encoder_ch_mult=(1, 1),
        decoder_ch_mult=(1, 1),
        z_channels=16,
        codebook_size=32,
        codebook_embed_dim=4,
        entropy_loss_ratio=0.1,
    ),
    "lfq": LFQConfig(ch=32, num_res_blocks=1, ch_mult=(1, 1), codebook_size=16),
    "glfq": GLFQConfig(ch=32, num_res_blocks=1, ch_mult=(1, 1), codebook_embed_dim=6, num_codebooks=2, downsample=2),
    "ibq": IBQConfig(
        ch=32, num_res_blocks=1, ch_mult=(1, 1), codebook_size=32, codebook_embed_dim=8, z_channels=16, resolution=32
    ),
}


def tiny(family: str) -> Tokenizer:
    torch.manual_seed(0)
    return build_tokenizer(TINY[family])


@pytest.fixture(params=sorted(TINY))
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    """A tokenizer of every family in turn, in training mode."""
    return tiny(request.param)


@pytest.fixture
def tiny_tokenizer() -> Callable[[str], Tokenizer]:
    """Builds the tiny tokenizer of a family; always with the same weights."""
    return tiny


@pytest.fixture
def pixels() -> torch.Tensor:
    """Two images that are wider than high, (2, 3, 8, 12)."""
    return torch.rand(2, 3, 8, 12, generator=torch.Generator().manual_seed(1)) * 2 - 1
