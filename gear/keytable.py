"""Tables that rename the keys of third-party state dicts: their keys on the left, ours on the right."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

StateDict = dict[str, Tensor]

_WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.", "_forward_module.")
"""Segments that torch.compile, FSDP, activation checkpointing and Fabric put into keys, at any depth."""


@dataclass(frozen=True)
class Dropped:
    """The right-hand side of a key that has no place here."""

    reason: str


Target = str | Dropped
Rules = Mapping[str | tuple[str, ...], Target | tuple[Target, ...]]
Match = tuple[tuple[str, ...], int, tuple[Target, ...], tuple[str, ...]]


@dataclass(frozen=True)
class KeyTable:
    """Rules in order; the first match counts.

    Inside a key `*` matches one part between dots (a block's number), at the end of a key all the rest; it stands for
    the same text on both sides. Several keys on the left are concatenated along the first axis; several on the right
    split it into equal parts, as where one side stores q, k and v separately. A key that no rule matches is kept as it
    is, so that the strict load afterwards reports it.
    """

    rules: Rules

    def rename(self, state_dict: Mapping[str, Tensor]) -> tuple[StateDict, dict[str, str]]:
        """The renamed state dict, and what was dropped: rule -> "n tensors: why".

        Keys to be concatenated of which some are missing give no key.
        """
        renamed: StateDict = {}
        dropped: dict[str, tuple[int, str]] = {}
        joined: defaultdict[str, dict[int, Tensor]] = defaultdict(dict)
        for key, value in state_dict.items():
            rules, part, targets, rest = self._match(key) or ((key,), 0, (key,), ())
            for target, piece in zip(targets, value.chunk(len(targets)) if len(targets) > 1 else [value], strict=True):
                if isinstance(target, Dropped):
                    dropped[rules[part]] = (dropped.get(rules[part], (0, ""))[0] + 1, target.reason)
                    continue
                name = _filled(target, rest)
                joined[name][part] = piece
                if len(joined[name]) == len(rules):
                    pieces = [joined[name][index] for index in range(len(rules))]
                    renamed[name] = pieces[0] if len(pieces) == 1 else torch.cat(pieces)
        return renamed, {rule: f"{count} tensors: {reason}" for rule, (count, reason) in dropped.items()}

    def _match(self, key: str) -> Match | None:
        """The first rule that matches `key`: its left side, the position there, its right side, what `*` matched."""
        for left, right in self.rules.items():
            names = left if isinstance(left, tuple) else (left,)
            for part, name in enumerate(names):
                if found := _pattern(name).fullmatch(key):
                    return names, part, right if isinstance(right, tuple) else (right,), found.groups()
        return None


@cache
def _pattern(name: str) -> re.Pattern[str]:
    """A key with `*` as a regular expression, with a group for each `*`."""
    body, end = (name[:-1], "(.*)") if name.endswith("*") else (name, "")
    return re.compile(re.escape(body).replace(r"\*", r"([^.]+)") + end)


def _filled(target: str, rest: tuple[str, ...]) -> str:
    for text in rest:
        target = target.replace("*", text, 1)
    return target


def unwrapped(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """The same without the parts that DDP, FSDP and torch.compile add to the keys."""
    cleaned = {}
    for key, value in state_dict.items():
        for wrapper in _WRAPPERS:
            key = key.replace(wrapper, "")
        cleaned[key] = value
    while cleaned and all(key.startswith("module.") for key in cleaned):
        cleaned = {key.removeprefix("module."): value for key, value in cleaned.items()}
    return cleaned
