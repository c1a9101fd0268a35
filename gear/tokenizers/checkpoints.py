"""Where the tokenizer is in every public checkpoint layout (`gear.weights.layouts` finds it), and its keys there.

    layout                     where the tokenizer is
    GEAR, any stage            `vq` (live) and `vq_ema` (averaged)
    LlamaGen                   `model`; the `ema` of its training files is not used
    Lightning (Open-MAGVIT2,   `state_dict`: live keys, and averaged shadows `model_ema.<live key without dots>`
      SEED-Voken's IBQ)
    state dict                 the file itself

The keys inside are ours in every layout, except where a family's `keys` say otherwise; keys that do not belong to a
tokenizer are dropped, with a reason. `gear.weights.load_tokenizer` does the loading.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gear.keytable import Dropped, KeyTable, Rules
from gear.tokenizers.recognise import matching_families

SHADOW = "model_ema."
"""Prefix of Lightning's averages: it is followed by the live key without its dots."""

_COMMON: Rules = {
    "encoder.*": "encoder.*",
    "decoder.*": "decoder.*",
    "quant_conv.*": "quant_conv.*",  # VQ and IBQ
    "post_quant_conv.*": "post_quant_conv.*",
    "quantize.embedding.weight": "quantize.embedding.weight",
    "loss.*": Dropped("discriminator and LPIPS of the original training"),
    f"{SHADOW}decay": Dropped("bookkeeping of the average"),
    f"{SHADOW}num_updates": Dropped("bookkeeping of the average"),
    f"{SHADOW}*": Dropped("averaged copies: they replace the live weights where those are kept"),
}


def tokenizer_keys(state_dict: Mapping[str, Any]) -> KeyTable:
    """The published keys of this tokenizer on the left, ours on the right: its family's rules, then those of all."""
    rules: dict[Any, Any] = {}
    for family in matching_families(state_dict):
        rules |= family.keys
    return KeyTable({**rules, **{left: right for left, right in _COMMON.items() if left not in rules}})


def with_averages(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """The live entries of a Lightning state dict, each replaced by its averaged shadow where it has one."""
    live = {key: value for key, value in state_dict.items() if not key.startswith(SHADOW)}
    return {key: state_dict.get(SHADOW + key.replace(".", ""), value) for key, value in live.items()}


def has_shadows(state_dict: Mapping[str, Any]) -> bool:
    """Whether a Lightning state dict carries averages."""
    return any(key.startswith(SHADOW) for key in state_dict)
