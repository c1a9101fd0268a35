"""Image tokenizers: pixels to codes and back. `build_tokenizer(TOKENIZERS["VQ-16"])` is the way in."""

from __future__ import annotations

from gear.tokenizers.base import Code, EntropyTerms, QuantizerLosses, Tokenizer, TokenizerConfig
from gear.tokenizers.vq import VQConfig, VQTokenizer

TOKENIZER_CONFIGS: dict[str, type[TokenizerConfig]] = {"vq": VQConfig}
"""Family name, as in checkpoints and YAML, to its configuration class."""

TOKENIZERS: dict[str, TokenizerConfig] = {
    # 0.05 is the entropy weight all GEAR training runs use.
    "VQ-16": VQConfig(entropy_loss_ratio=0.05),
    "VQ-8": VQConfig(encoder_ch_mult=(1, 2, 2, 4), decoder_ch_mult=(1, 2, 2, 4), entropy_loss_ratio=0.05),
}
"""The published architectures by name."""


def build_tokenizer(config: TokenizerConfig) -> Tokenizer:
    """A freshly initialised tokenizer of the family that `config` describes."""
    match config:
        case VQConfig():
            return VQTokenizer(config)
    raise TypeError(f"no tokenizer is built from {type(config).__name__}; use one of {', '.join(TOKENIZER_CONFIGS)}")


__all__ = [
    "TOKENIZERS",
    "TOKENIZER_CONFIGS",
    "Code",
    "EntropyTerms",
    "QuantizerLosses",
    "Tokenizer",
    "TokenizerConfig",
    "VQConfig",
    "VQTokenizer",
    "build_tokenizer",
]
