"""Whether a tokenizer and an AR model belong together."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import torch
from torch import Tensor

from gear.ar.config import TrunkConfig
from gear.ar.model import Trunk
from gear.tokenizers import FAMILIES
from gear.tokenizers.base import Tokenizer, TokenizerConfig
from gear.weights.model_file import ModelFile
from harness.contract.errors import UserError

log = logging.getLogger(__name__)


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


def check_own_codes(model: ModelFile, source: ModelFile, *, ema: bool = True) -> None:
    """Raise UserError unless the tokenizer of `source` gives the codes that the AR model of `model` was trained on.

    A tokenizer of the same shape passes every other check and draws noise. The tokenizer in the model's own file
    decides, live or averaged, up to the rounding of half precision; where the file has none, a warning says so.
    """
    if not model.has("tokenizer"):
        log.warning(
            "%s does not hold the tokenizer that it was trained with: whether %s is that one cannot be told.",
            model.source,
            source.source,
        )
        return
    theirs = _code_tensors(source.weights("tokenizer", ema=ema))
    own = (_code_tensors(model.parts[part]) for part in ("vq_ema", "vq") if part in model.parts)
    if not any(_same_tensors(theirs, tensors) for tensors in own):
        raise UserError(
            f"the tokenizer of {source.source} is not the one that {model.source} was trained with, which that file "
            "holds, so its codes mean something else; leave the tokenizer out. For other codes on purpose, give the AR "
            f"model alone: gear convert {model.source} --part {'ema' if 'ema' in model.parts else 'ar'} --out DIR"
        )


def _code_tensors(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The learned codebook; of families without one (LFQ) the encoder, which alone decides what a code means."""
    codebook = {key: value for key, value in state.items() if key.startswith("quantize.")}
    return codebook or {key: value for key, value in state.items() if key.startswith("encoder.")}


def _same_tensors(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        value.shape == other[key].shape and torch.allclose(value.float(), other[key].float(), rtol=2**-7, atol=1e-6)
        for key, value in one.items()
    )
