"""Image tokenizers: pixels to codes and back. `build_tokenizer(TOKENIZERS["VQ-16"])` is the way in."""

from __future__ import annotations

from gear.tokenizers.base import Code, EntropyTerms, QuantizerLosses, Tokenizer, TokenizerConfig
from gear.tokenizers.glfq import GLFQConfig, GLFQTokenizer
from gear.tokenizers.ibq import IBQConfig, IBQTokenizer
from gear.tokenizers.lfq import LFQConfig, LFQTokenizer
from gear.tokenizers.vq import VQConfig, VQTokenizer

TOKENIZER_CONFIGS: dict[str, type[TokenizerConfig]] = {
    config.family: config for config in (VQConfig, LFQConfig, GLFQConfig, IBQConfig)
}
"""Family name, as in checkpoints and YAML, to its configuration class."""

_ENTROPY = 0.05
"""The weight of the entropy regulariser in every GEAR training run, whatever a family's own default."""

TOKENIZERS: dict[str, TokenizerConfig] = {
    "VQ-16": VQConfig(entropy_loss_ratio=_ENTROPY),
    "VQ-8": VQConfig(encoder_ch_mult=(1, 2, 2, 4), decoder_ch_mult=(1, 2, 2, 4), entropy_loss_ratio=_ENTROPY),
    "LFQ-16": LFQConfig(entropy_loss_ratio=_ENTROPY),
    "LFQ-8": GLFQConfig(codebook_embed_dim=8, num_codebooks=1, downsample=8, entropy_loss_ratio=_ENTROPY),
    "GLFQ-16": GLFQConfig(entropy_loss_ratio=_ENTROPY),
    "IBQ-16": IBQConfig(entropy_loss_ratio=_ENTROPY),
}
"""The published architectures by name."""


def build_tokenizer(config: TokenizerConfig) -> Tokenizer:
    """A freshly initialised tokenizer of the family that `config` describes."""
    match config:
        case VQConfig():
            return VQTokenizer(config)
        case LFQConfig():
            return LFQTokenizer(config)
        case GLFQConfig():
            return GLFQTokenizer(config)
        case IBQConfig():
            return IBQTokenizer(config)
    raise TypeError(f"no tokenizer is built from {type(config).__name__}; use one of {', '.join(TOKENIZER_CONFIGS)}")


__all__ = [
    "TOKENIZERS",
    "TOKENIZER_CONFIGS",
    "Code",
    "EntropyTerms",
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
]
