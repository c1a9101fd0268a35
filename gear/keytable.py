"""Their keys on the left, ours on the right: the visible table by which foreign state dicts are renamed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

StateDict = dict[str, Tensor]

_WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.", "_forward_module.")
"""Segments that torch.compile, FSDP, activation checkpointing and Fabric put into keys, at any depth."""


@dataclass(frozen=True)
class Dropped:
    """The right-hand side of a key that has no place here."""

    reason: str


@dataclass(frozen=True)
class KeyTable:
    """Rules in order, the first match counts; a trailing `*` on both sides stands for the rest of the key.

    A key that no rule names is kept as it is, so that the strict load after it says what is unknown.
    """

    rules: Mapping[str, str | Dropped]

    def rename(self, state_dict: Mapping[str, Tensor]) -> tuple[StateDict, dict[str, str]]:
        """The renamed state dict, and what was dropped: rule -> "n tensors: why"."""
        renamed: StateDict = {}
        dropped: defaultdict[str, int] = defaultdict(int)
        for key, value in state_dict.items():
            rule = next((rule for rule in self.rules if _matches(rule, key)), key)
            target = self.rules.get(rule, key)
            if isinstance(target, Dropped):
                dropped[rule] += 1
            elif rule.endswith("*"):
                renamed[target.removesuffix("*") + key.removeprefix(rule.removesuffix("*"))] = value
            else:
                renamed[target] = value
        return renamed, {rule: f"{count} tensors: {self._reason(rule)}" for rule, count in dropped.items()}

    def _reason(self, rule: str) -> str:
        target = self.rules[rule]
        assert isinstance(target, Dropped)
        return target.reason


def _matches(rule: str, key: str) -> bool:
    return key.startswith(rule[:-1]) if rule.endswith("*") else key == rule


def unwrapped(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """The same without what DDP, FSDP and torch.compile put into the keys."""
    cleaned = {}
    for key, value in state_dict.items():
        for wrapper in _WRAPPERS:
            key = key.replace(wrapper, "")
        cleaned[key] = value
    while cleaned and all(key.startswith("module.") for key in cleaned):
        cleaned = {key.removeprefix("module."): value for key, value in cleaned.items()}
    return cleaned
