"""Where the tokenizer is in every public checkpoint layout (`gear.weights.layouts` finds it), and its keys there.

    layout                     where the tokenizer is
    GEAR, any stage            `vq` (live) and `vq_ema` (averaged)
    LlamaGen                   `model`; the `ema` of its training files is not used
    Lightning (Open-MAGVIT2,   `state_dict`: live keys, and averaged shadows `model_ema.<live key without dots>`
      SEED-Voken's IBQ)
    state dict                 the file itself

The keys inside are ours in every layout; what has no place in a tokenizer is dropped, with its reason, by
TOKENIZER_KEYS. Loading is `gear.weights.load_tokenizer`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gear.keytable import Dropped, KeyTable

TOKENIZER_KEYS = KeyTable(
    {
        "encoder.*": "encoder.*",
        "decoder.*": "decoder.*",
        "quant_conv.*": "quant_conv.*",  # VQ and IBQ
        "post_quant_conv.*": "post_quant_conv.*",
        "quantize.embedding.weight": "quantize.embedding.weight",
        "quantize.codebook_used": Dropped("LlamaGen's window of recently used codes"),
        "quantize.mask": Dropped("LFQ's bit values, which follow from the codebook size"),
        "quantize.codebook": Dropped("LFQ's sign patterns, which follow from the codebook size"),
        "loss.*": Dropped("discriminator and LPIPS of the original training"),
        "model_ema.decay": Dropped("bookkeeping of the average"),
        "model_ema.num_updates": Dropped("bookkeeping of the average"),
        "model_ema.*": Dropped("averaged copies: they take the place of the live weights where those are kept"),
    }
)
"""Open-MAGVIT2's, IBQ's and LlamaGen's keys on the left, ours on the right."""

SHADOW = "model_ema."
"""Lightning's averages: this and the live key without its dots."""


def from_lightning(state_dict: Mapping[str, Any], *, ema: bool) -> Mapping[str, Any]:
    """Live weights of the tokenizer, each replaced by its shadow where it has one.

    A file without any shadow is returned whole: it was not written by the original training script.
    """
    if not has_shadows(state_dict):
        return state_dict
    prefixes: tuple[str, ...] = ("encoder.", "decoder.")
    if any("quantize.embedding" in key for key in state_dict):  # IBQ; LFQ has neither codebook nor these convolutions
        prefixes += ("quant_conv.", "post_quant_conv.", "quantize.")
    live = {key: value for key, value in state_dict.items() if key.startswith(prefixes)}
    if not ema:
        return live
    return {key: state_dict.get(SHADOW + key.replace(".", ""), value) for key, value in live.items()}


def has_shadows(state_dict: Mapping[str, Any]) -> bool:
    """Whether a Lightning state dict carries averages."""
    return any(key.startswith(SHADOW) for key in state_dict)
