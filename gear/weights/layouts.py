"""Split a checkpoint into its parts: which state dict is which model, under our keys, and what was left out.

    layout        recognised by                                  parts
    GEAR          vq, vq_ema, ar, ema, projectors, discriminator  the same; null_caption of our stage t2i
    LlamaGen      model (DDP) or module (DeepSpeed), ema          vq, or ar and ema
    Lightning     state_dict with model_ema.* shadows             vq, vq_ema
    state dict    the tensors themselves                          vq, or ar

Wrappers' prefixes (DDP, FSDP, torch.compile) are removed everywhere; the rest is renamed by the tables of
`tokenizer_keys` and AR_KEYS.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gear.ar.checkpoints import AR_KEYS, is_ar
from gear.foreign import StateDict, is_state_dict, outline
from gear.keytable import KeyTable, unwrapped
from gear.tokenizers import FAMILIES
from gear.tokenizers.checkpoints import has_shadows, tokenizer_keys, with_averages
from gear.tokenizers.recognise import is_tokenizer
from harness.contract.errors import UserError

PARTS = ("vq", "vq_ema", "ar", "ema", "projectors", "discriminator", "null_caption")
"""State dicts that a model file may hold, under the keys of the published GEAR files."""

_TABLES: dict[str, Callable[[Mapping[str, Any]], KeyTable]] = {
    "vq": tokenizer_keys,
    "vq_ema": tokenizer_keys,
    "ar": lambda state_dict: AR_KEYS,
    "ema": lambda state_dict: AR_KEYS,
}
_FACTS = ("config", "phase", "steps", "stage", "global_step", "args")
_WRAPPERS = ("model", "module", "state_dict")


@dataclass(kw_only=True)
class Contents:
    """What a file holds."""

    layout: str
    parts: dict[str, StateDict] = field(default_factory=dict)
    """By the names in PARTS."""
    original: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    """The same before anything was dropped: a tensor that is not a weight of ours may still show a size."""
    dropped: dict[str, str] = field(default_factory=dict)
    """Key, or group of keys -> how many tensors, and why they were left out."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Plain entries beside the weights that describe them."""

    def add(self, part: str, state_dict: Mapping[str, Any]) -> None:
        """Add a state dict as a part, under our keys."""
        cleaned = unwrapped(state_dict)
        table = _TABLES.get(part)
        self.original[part] = cleaned
        self.parts[part], dropped = table(cleaned).rename(cleaned) if table else (cleaned, {})
        self.dropped.update(dropped)


def contents_of(content: Any, path: Path) -> Contents:
    """Split a file's content into parts; raises UserError, saying what was found, for an unknown layout."""
    if is_state_dict(content):
        return _single("state dict", content, path, whole=True)
    if isinstance(content, Mapping):
        wrapper = next((key for key in _WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if any(key in content for key in PARTS if key not in ("ema", "discriminator") or wrapper is None):
            found = _gear(content, path)
        elif wrapper is not None:
            found = _wrapped(wrapper, content, path)
        else:
            raise _unknown(path, f"it holds {outline(content)}")
        _account(found, content)
        return found
    raise _unknown(path, f"it holds {outline(content)}")


def _gear(content: Mapping[str, Any], path: Path) -> Contents:
    found = Contents(layout="GEAR")
    for part in PARTS:
        if is_state_dict(content.get(part)):
            found.add(part, content[part])
        elif content.get(part):
            raise UserError(
                f"{part!r} of {path} is not a state dict (found: {outline(content[part])}); "
                "check that it is the file you meant"
            )
    if not found.parts:
        raise _unknown(path, f"it holds {outline(content)}, all of them empty")
    return found


def _wrapped(wrapper: str, content: Mapping[str, Any], path: Path) -> Contents:
    """LlamaGen and Lightning: one state dict under the key of the training framework."""
    weights = content[wrapper]
    if not is_state_dict(weights):
        raise _unknown(path, f"{wrapper!r} in it is not a state dict (found: {outline(weights)})")
    if wrapper == "state_dict" and has_shadows(weights):
        return _lightning(weights, path)
    found = _single("Lightning" if wrapper == "state_dict" else "LlamaGen", weights, path, whole=False, name=wrapper)
    if is_state_dict(content.get("ema")):
        if "ar" in found.parts:
            found.add("ema", content["ema"])
        else:
            found.dropped["ema"] = "averaged tokenizer of LlamaGen's training; its published numbers are of `model`"
    return found


def _lightning(weights: Mapping[str, Any], path: Path) -> Contents:
    """Open-MAGVIT2 and IBQ: live weights, and averaged shadows that replace them where they exist."""
    found = _single("Lightning", weights, path, whole=False, name="state_dict")
    found.add("vq_ema", with_averages(weights))
    return found


def _single(layout: str, weights: Mapping[str, Any], path: Path, *, whole: bool, name: str = "") -> Contents:
    """One state dict, whose kind only its tensors show."""
    found = Contents(layout=layout)
    cleaned = unwrapped(weights)
    if is_tokenizer(cleaned):
        found.add("vq", weights)
    elif is_ar(cleaned):
        found.add("ar", weights)
    else:
        where = "its tensors" if whole else f"the tensors under {name!r}"
        raise _unknown(path, f"{where} belong to neither a tokenizer nor an AR model: {outline(weights)}")
    return found


def _account(found: Contents, content: Mapping[str, Any]) -> None:
    """Keep the plain facts; record everything else as left out."""
    for key, value in content.items():
        if key in _FACTS:
            found.facts[key] = value
        elif key not in found.parts and key not in found.dropped and key not in _WRAPPERS:
            found.dropped[key] = _reason(key)


def _reason(key: str) -> str:
    if key.startswith(("opt", "sched", "lr_sched")):
        return "state of an optimizer or its schedule"
    return "bookkeeping of the training"


def _unknown(path: Path, found: str) -> UserError:
    *others, last = dict.fromkeys(["GEAR", *(family.origin for family in FAMILIES.values() if family.origin)])
    return UserError(
        f"{path} is not a model in a known layout: {found}; give a {', '.join(others)} or {last} checkpoint, "
        "or a plain state dict of one"
    )
