"""Whether a tokenizer and an AR model belong together."""

from __future__ import annotations

from gear.ar.config import TrunkConfig
from gear.ar.model import Trunk
from gear.tokenizers import FAMILIES
from gear.tokenizers.base import Tokenizer, TokenizerConfig
from harness.contract.errors import UserError


def check_pair(
    tokenizer: Tokenizer | TokenizerConfig,
    ar: Trunk | TrunkConfig,
    *,
    trained_with: TokenizerConfig | None = None,
    image_size: int | None = None,
) -> None:
    """Raise UserError, with the fix, when `ar` cannot have been trained on the codes of `tokenizer`.

    trained_with: the tokenizer that the AR model's own file records; ids alone do not show a codebook's dimension.
    image_size: the image size that is asked for, in pixels.
    """
    tokenizer = tokenizer.config if isinstance(tokenizer, Tokenizer) else tokenizer
    ar = ar.config if isinstance(ar, Trunk) else ar
    if tokenizer.num_codes != ar.vocab_size:
        raise UserError(
            f"the AR model has {ar.vocab_size} codes but the tokenizer has {tokenizer.num_codes}; "
            "give the tokenizer that the AR model was trained with."
        )
    if tokenizer.codes_per_token != 1:
        raise UserError(
            f"the tokenizer has {tokenizer.codes_per_token} codes per token, which no AR model here supports; "
            "give one with a single code, such as LFQ-16 instead of GLFQ-16."
        )
    if trained_with is not None:
        _same_codes(tokenizer, trained_with)
    native = ar.grid_side * tokenizer.downsample
    if image_size is not None and image_size != native:
        raise UserError(
            f"the AR model draws {ar.grid_side} x {ar.grid_side} tokens, {native} px with this tokenizer, but "
            f"{image_size} px were asked for; give a model of that size, or ask for {native} px."
        )


def _same_codes(tokenizer: TokenizerConfig, trained_with: TokenizerConfig) -> None:
    for what, given, known in (
        ("family", FAMILIES[tokenizer.family].code_kind, FAMILIES[trained_with.family].code_kind),
        ("code dimension", tokenizer.code_dim, trained_with.code_dim),
        ("downsample factor", tokenizer.downsample, trained_with.downsample),
    ):
        if given != known:
            raise UserError(
                f"the AR model was trained with a tokenizer of {what} {known}, but this one has {given}; "
                "give the tokenizer that the AR model was trained with."
            )
