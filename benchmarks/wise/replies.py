"""Reads the score in a judge's reply. Pure, and as strict as the original: what that does not read is not a score."""

from __future__ import annotations

import re

_THINKING = re.compile(r"<think>.*?</think>\s*", re.DOTALL)
_END_OF_THINKING = re.compile(r"</think>\s*")
_SCORE = re.compile(r"\*{0,2}Score\*{0,2}\s*:?\s*([01])\b", re.IGNORECASE)
_BARE = re.compile(r"[01]")

LEGACY_WEIGHTS = {"consistency": 0.7, "realism": 0.2, "aesthetic quality": 0.1}
"""Of the three scores of the older protocol, each 0..2."""


def clean(reply: str) -> str:
    """A reply without its thinking: whole `<think>` blocks, then a closing tag left over. An unclosed block stays."""
    return _END_OF_THINKING.sub("", _THINKING.sub("", reply)).strip()


def parse_score(cleaned: str) -> float | None:
    """The binary score in a cleaned reply: the first "Score: 0|1", else the one line that is nothing but 0 or 1."""
    match = _SCORE.search(cleaned)
    if match:
        return float(match.group(1))
    bare = [line.strip() for line in cleaned.split("\n") if _BARE.fullmatch(line.strip())]
    return float(bare[0]) if len(bare) == 1 else None


_DRESS = r"""["'`_*\s]*"""


def parse_legacy_scores(cleaned: str) -> dict[str, int] | None:
    """The three scores of the older protocol, 0 to 2 each; None unless all three are there."""
    found = {}
    for name in LEGACY_WEIGHTS:
        # Bold, quoted or plain, with its range in brackets or not; "Inconsistency", "-1", "0-2" and "1.5" do not count.
        pattern = (
            rf"(?<![^\W_]){name}{_DRESS}(?:\([^)]*\){_DRESS})?[:：=]{_DRESS}\[?{_DRESS}([012])(?![^\W_])(?![\d.–-]*\d)"
        )
        match = re.search(pattern, cleaned, re.IGNORECASE)
        if match is None:
            return None
        found[name] = int(match.group(1))
    return found


def legacy_wiscore(scores: dict[str, int]) -> float:
    """One number within 0..1: 0.7 consistency + 0.2 realism + 0.1 aesthetic quality, over 2."""
    return sum(weight * scores[name] for name, weight in LEGACY_WEIGHTS.items()) / 2
