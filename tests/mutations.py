"""Mutated YAML: what people and disks do to it. Seeded, so that a failure can be repeated."""

from __future__ import annotations

import random
from collections.abc import Iterator

ODD_VALUES = (
    "abc", "-1", "0", "1e999", ".nan", "null", "true", "''", "[]", "{}", "[1, [2]]", "{a: {b: c}}", "2001-13-45",
    "!!bool x", "!!timestamp x", "[" * 3000, "*nobody", "\x00", "\ufffe", "'\\'", "99999999999999999999",
    "a\tb: c", "../..", "&a [*a]", "/dev/zero", "<<",
)  # fmt: skip


def mutations(text: str, seed: int, count: int) -> Iterator[str]:
    """`count` texts that differ from `text` in one or two places."""
    rng = random.Random(seed)
    for _ in range(count):
        mutated = text
        for _ in range(rng.choice((1, 1, 2))):
            mutated = rng.choice((_other_value, _other_value, _other_value, _other_lines, _other_bytes))(mutated, rng)
        yield mutated


def _other_value(text: str, rng: random.Random) -> str:
    lines = text.splitlines() or [""]
    number = rng.randrange(len(lines))
    key, colon, _ = lines[number].partition(":")
    lines[number] = f"{key}{colon or ':'} {rng.choice(ODD_VALUES)}"
    return "\n".join(lines) + "\n"


def _other_lines(text: str, rng: random.Random) -> str:
    lines = text.splitlines() or [""]
    number = rng.randrange(len(lines))
    changed = rng.choice(([], [lines[number]] * 2, ["  " + lines[number]], [lines[number].strip()], lines[number:][:1]))
    return "\n".join([*lines[:number], *changed, *lines[number + 1 :]]) + "\n"


def _other_bytes(text: str, rng: random.Random) -> str:
    start = rng.randrange(len(text) or 1)
    length = rng.choice((0, 1, 5, len(text)))
    return text[:start] + rng.choice(("", ":", "[", "}", "#", "'", "\n", "-", "é", "\ud800")) + text[start + length :]
