"""Reads the score in a judge's reply. Pure.

`parse_score` is as strict, and as lenient, as the original. `read` refuses besides what the original reads as a score
although it is none: a reply that was cut off before its answer, and a number that is not 0 or 1 ("Score: 0.5").
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

_BLANK = re.compile(r"\s*")
_END_OF_THINKING = re.compile(r"</think>\s*")
_SCORE = re.compile(r"\*{0,2}Score\*{0,2}\s*(?::\s*)?([01])\b", re.IGNORECASE)
_BARE = re.compile(r"[01]")
_GOES_ON = re.compile(r"[.,]\d*[1-9]|[-–]\d|/(?!1\b)\d|\s*%|\s+(?:or|to|if|out of)\b", re.IGNORECASE)
"""Behind a digit: it is part of another number or of a condition, and not a score."""
_LIKE_A_SCORE = re.compile(r"score[^\n\d]{0,40}\d[^\n]{0,40}", re.IGNORECASE)
_ANSWER = re.compile(r"\W*[\w ]*\W*[0-2]\W*")
"""A line that is nothing but a score, with a name or without."""
_SHOWN = 200

LEGACY_WEIGHTS = {"consistency": 0.7, "realism": 0.2, "aesthetic quality": 0.1}
"""Of the three scores of the older protocol, each 0..2."""


@dataclass(frozen=True)
class Reply:
    """What a judge said about one image."""

    text: str
    finish_reason: str = "stop"
    """Why it ended, in the server's word: "length" for a reply that reached `max_tokens`."""

    @property
    def is_cut_off(self) -> bool:
        """Whether the judge had more to say."""
        return self.finish_reason == "length"


@dataclass(frozen=True)
class Reading:
    """What a reply is worth: a score of 0..1, or one word and a sentence why there is none."""

    score: float | None
    reason_class: str = ""
    problem: str = ""


def read(benchmark: str, reply: Reply) -> Reading:
    """The score in a reply; where there is none, why, and what to do about it."""
    cleaned = clean(reply.text)
    parse, form = _FORMS[benchmark]
    if "<think>" in cleaned:
        return Reading(None, "cut-off-reply", f"the reply ends inside its thinking; {_longer(benchmark)}")
    score = parse(_opening(cleaned, len(form)) if reply.is_cut_off else cleaned)
    if score is not None:
        return Reading(score)
    if reply.is_cut_off:
        return Reading(None, "cut-off-reply", f"the reply was cut off before its answer; {_longer(benchmark)}")
    return Reading(None, "unreadable-reply", f"{_seen(cleaned, reply)}; {_in_form(benchmark, form)}")


def clean(reply: str) -> str:
    """A reply without its thinking: whole `<think>` blocks, then a closing tag left over. An unclosed block stays."""
    kept, position = [], 0
    while (start := reply.find("<think>", position)) >= 0 and (end := reply.find("</think>", start)) >= 0:
        kept.append(reply[position:start])
        position = _blank_ends(reply, end + len("</think>"))
    return _END_OF_THINKING.sub("", "".join(kept) + reply[position:]).strip()


def _blank_ends(text: str, position: int) -> int:
    blank = _BLANK.match(text, position)
    return blank.end() if blank else position


def parse_score(cleaned: str) -> float | None:
    """The binary score in a cleaned reply: the first "Score: 0|1", else the one line that is nothing but 0 or 1."""
    match = _SCORE.search(cleaned)
    if match:
        return float(match.group(1))
    bare = [line.strip() for line in cleaned.split("\n") if _BARE.fullmatch(line.strip())]
    return float(bare[0]) if len(bare) == 1 else None


def _parse_whole_score(cleaned: str) -> float | None:
    """`parse_score`, unless what it takes for a score is the beginning of something else."""
    match = _SCORE.search(cleaned)
    return None if match and _GOES_ON.match(cleaned, match.end()) else parse_score(cleaned)


# --- the older protocol ----------------------------------------------------------------------------------------------

_DRESS = r"""["'`_*\s]*"""
_NAMED = {
    # Bold, quoted or plain, with its range in brackets or not; "Inconsistency" does not count. Without a colon, name
    # and number are the whole line: "for consistency 2 objects are needed" is no score.
    name: re.compile(
        rf"(?<![^\W_]){name.replace(' ', '[ _-]?')}{_DRESS}"
        rf"(?:(?:\([^)\n]{{0,40}}\){_DRESS})?[:：=]{_DRESS}(?:\[{_DRESS})?(?=(?P<value>-?\d[^\n]{{0,12}}))"
        r"|\|?[ \t]*(?P<bare>[0-2])(?:[ \t]*/[ \t]*2)?[^\w\n]*$)",
        re.IGNORECASE | re.MULTILINE,
    )
    for name in LEGACY_WEIGHTS
}
_OF_TWO = re.compile(r"([0-2])(?:\.0+)?(?![^\W_])(?![\d.,–-]*\d)(?!\s*%|\s+(?:or|to|if)\b)", re.IGNORECASE)
"""A whole number from 0 to 2; "-1", "0-2", "1.5" and "0 or 1" are none."""


def parse_legacy_scores(cleaned: str) -> dict[str, int] | None:
    """The three scores of the older protocol, 0 to 2 each; None unless all three are there.

    Each stands behind its name, and the last one counts; or they are the only three lines with nothing but a number.
    """
    named = {name: _last(name, cleaned) for name in LEGACY_WEIGHTS}
    found = {name: score for name, score in named.items() if score is not None}
    if len(found) == len(LEGACY_WEIGHTS):
        return found
    bare = [line.strip() for line in cleaned.split("\n") if line.strip().isdigit()]
    if any(pattern.search(cleaned) for pattern in _NAMED.values()) or len(bare) != len(LEGACY_WEIGHTS):
        return None
    return {name: int(digit) for name, digit in zip(named, bare, strict=True)} if set(bare) <= set("012") else None


def _last(name: str, cleaned: str) -> int | None:
    """The score that is named last; None when that is none."""
    said = [match["bare"] or match["value"] for match in _NAMED[name].finditer(cleaned)]
    number = _OF_TWO.match(said[-1]) if said else None
    return int(number.group(1)) if number else None


def legacy_wiscore(scores: dict[str, int]) -> float:
    """One number within 0..1: 0.7 consistency + 0.2 realism + 0.1 aesthetic quality, over 2."""
    return sum(weight * scores[name] for name, weight in LEGACY_WEIGHTS.items()) / 2


def _parse_legacy_score(cleaned: str) -> float | None:
    scores = parse_legacy_scores(cleaned)
    return None if scores is None else legacy_wiscore(scores)


# --- both ------------------------------------------------------------------------------------------------------------

_FORMS: dict[str, tuple[Callable[[str], float | None], tuple[str, ...]]] = {
    "wise": (_parse_whole_score, ("Score: 1",)),
    "wise_legacy": (_parse_legacy_score, ("Consistency: 2", "Realism: 1", "Aesthetic Quality: 0")),
}
"""Benchmark -> how its replies are read, and the lines of a good one."""


def _opening(cleaned: str, count: int) -> str:
    """The first lines of a reply that was cut off, where they are its answer: what follows it is not missed.

    A score at the very end is never taken, since the rest of it may be missing ("Score: 0" of "Score: 0.5").
    """
    lines = [line.strip() for line in cleaned.split("\n") if line.strip()]
    lines = lines[:-1] if lines and _is_answer(lines[-1]) else lines
    opens = all(_is_answer(line) or _SCORE.match(line) for line in lines[:count])
    return "\n".join(lines[:count]) if opens else ""


def _is_answer(line: str) -> bool:
    return len(line) < 60 and _ANSWER.fullmatch(line) is not None


def _seen(cleaned: str, reply: Reply) -> str:
    """What a reply without a score says instead."""
    if not cleaned:
        thought = "nothing but its thinking" if reply.text.strip() else "empty"
        return f"the reply is {thought} (finish_reason {reply.finish_reason!r})"
    near = _LIKE_A_SCORE.search(cleaned)
    if near:
        return f"the reply says {cleaned[max(0, near.start() - 10) : near.end()]!r}, which is not read as a score"
    return f"no score can be read in the reply {cleaned[:_SHOWN]!r}"


def _longer(benchmark: str) -> str:
    return (
        f"raise the limit (--set {benchmark}.max_tokens=4000), or switch the judge's thinking off "
        f"(--set {benchmark}.disable_thinking=true, where the server knows it)"
    )


def _in_form(benchmark: str, form: tuple[str, ...]) -> str:
    lines = " / ".join(form)
    return (
        f"the judge has to write {lines!r}: take another judge, or another wording (--set {benchmark}.user_prompt=...)"
    )
