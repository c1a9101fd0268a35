"""Tables that say what another project's weights are called here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import torch

from gear.foreign import StateDict

DROPPED = None
"""Right side of an entry that has no place here."""

Side: TypeAlias = str | tuple[str | None, ...] | None


@dataclass(frozen=True)
class KeyTable:
    """Their keys on the left, ours on the right; the first entry that fits a key decides.

    An entry stands for a key or for everything below it (`blocks.*.norm1` for its weight and bias), and `*` for a
    block's number. Several keys on the left are concatenated along the first axis, several on the right are equal
    parts of it. A key without an entry keeps its name, so that strict loading reports it.
    """

    marker: str
    """A key that tells this layout from the others."""
    entries: Mapping[str | tuple[str, ...], Side]
    _rules: list[tuple[re.Pattern[str], int, int, Side]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        rules = []
        for left, right in self.entries.items():
            names = left if isinstance(left, tuple) else (left,)
            rules += [(_pattern(name), part, len(names), right) for part, name in enumerate(names)]
        object.__setattr__(self, "_rules", rules)

    def rename(self, weights: Mapping[str, torch.Tensor]) -> StateDict:
        """`weights` under our names. A concatenation with a missing part yields no key at all."""
        ours: StateDict = {}
        parts: dict[str, dict[int, torch.Tensor]] = {}
        for key, value in weights.items():
            part, count, right = self._entry(key)
            if isinstance(right, tuple):
                pieces = value.chunk(len(right))
                ours.update({name: piece for name, piece in zip(right, pieces, strict=True) if name is not None})
            elif right is not None and count == 1:
                ours[right] = value
            elif right is not None:
                found = parts.setdefault(right, {})
                found[part] = value
                if len(found) == count:
                    ours[right] = torch.cat([found[index] for index in range(count)])
        return ours

    def _entry(self, key: str) -> tuple[int, int, Side]:
        """(position on the left, number of keys there, right side with the block's number filled in)."""
        for pattern, part, count, right in self._rules:
            if match := pattern.fullmatch(key):
                return part, count, _filled(right, match.groups())
        return 0, 1, key


def _pattern(name: str) -> re.Pattern[str]:
    """`a.*.b` as an expression whose groups are the numbers and whatever follows below."""
    return re.compile(re.escape(name).replace(r"\*", r"(\d+)") + r"((?:\..+)?)")


def _filled(side: Side, groups: tuple[str, ...]) -> Side:
    if side is None:
        return None
    if isinstance(side, tuple):
        return tuple(None if name is None else _fill(name, groups) for name in side)
    return _fill(side, groups)


def _fill(name: str, groups: tuple[str, ...]) -> str:
    *numbers, below = groups
    for number in numbers:
        name = name.replace("*", number, 1)
    return name + below
