"""Tokenizer weights out of every public checkpoint layout, then a strict load.

    layout                     where the tokenizer is
    GEAR, any stage            `vq` (live) and `vq_ema` (averaged)
    LlamaGen                   `model`; the `ema` of its training files is not used
    Lightning (Open-MAGVIT2,   `state_dict`: live keys, and averaged shadows `model_ema.<live key without dots>`
      SEED-Voken's IBQ)
    state dict                 the file itself

The keys inside are ours in every layout; what has no place in a tokenizer is named in DROPPED.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gear.foreign import StateDict, is_state_dict, load_exactly, read_weights
from gear.tokenizers.base import Tokenizer
from harness.contract.errors import UserError

DROPPED = (
    "quantize.codebook_used",  # LlamaGen's window of recently used codes
    "loss.",  # Lightning: discriminator and LPIPS of the original training
)
"""Beginnings of keys that a tokenizer file may hold beside the tokenizer."""

_SHADOW = "model_ema."
_COMPILED = "_orig_mod."


def load_tokenizer_weights(tokenizer: Tokenizer, path: Path, *, ema: bool = True) -> None:
    """Fill `tokenizer` from a file of any layout; raises UserError when a key is missing, left over or misshaped."""
    weights = select_weights(read_weights(path), ema=ema, source=str(path))
    kept = {key: value for key, value in weights.items() if not key.startswith(DROPPED)}
    load_exactly(tokenizer, kept, source=str(path))


def select_weights(content: Any, *, ema: bool, lightning_ema: bool = True, source: str = "the file") -> StateDict:
    """The tokenizer's state dict out of a checkpoint's content, without loading it.

    Args:
        content: what `read_weights` returned.
        ema: take GEAR's averaged weights where there are some; live ones are taken where there are only those, and
            the other way round.
        lightning_ema: the same for Lightning files. Apart, because the reference reads their averaged weights even
            where it reads GEAR's live ones.

    Raises:
        UserError: there is no state dict where the layout has one.
    """
    weights = _find(content, ema=ema, lightning_ema=lightning_ema)
    if not is_state_dict(weights):
        found = ", ".join(map(str, list(content)[:8])) if isinstance(content, Mapping) else type(content).__name__
        raise UserError(
            f"{source} holds no tokenizer weights in a known layout (found: {found}); "
            "give a GEAR, LlamaGen, Open-MAGVIT2 or IBQ tokenizer file, or a plain state dict"
        )
    # torch.compile puts a prefix on every key or on none.
    return {key.removeprefix(_COMPILED): value for key, value in weights.items()}


def _find(content: Any, *, ema: bool, lightning_ema: bool) -> Any:
    """The first layout that matches; the order is the reference's."""
    if not isinstance(content, Mapping):
        return None
    if isinstance(lightning := content.get("state_dict"), Mapping):
        return _from_lightning(lightning, ema=lightning_ema)
    for key in ("vq_ema", "vq") if ema else ("vq", "vq_ema"):
        if isinstance(content.get(key), Mapping):
            return content[key]
    if isinstance(content.get("model"), Mapping):
        return content["model"]
    return content


def _from_lightning(state_dict: Mapping[str, Any], *, ema: bool) -> Mapping[str, Any]:
    """Live weights of the tokenizer, each replaced by its shadow where it has one.

    A file without any shadow is returned whole: it was not written by the original training script.
    """
    if not any(key.startswith(_SHADOW) for key in state_dict):
        return state_dict
    prefixes: tuple[str, ...] = ("encoder.", "decoder.")
    if any("quantize.embedding" in key for key in state_dict):  # IBQ; LFQ has neither codebook nor these convolutions
        prefixes += ("quant_conv.", "post_quant_conv.", "quantize.")
    live = {key: value for key, value in state_dict.items() if key.startswith(prefixes)}
    if not ema:
        return live
    return {key: state_dict.get(_SHADOW + key.replace(".", ""), value) for key, value in live.items()}
