"""Reads the score files of the original's judge step (one JSON object per line), with its rules for broken lines.

For score files that already exist: `python -m benchmarks.wise.score_files FILE...` prints their WiScore.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.wise.protocols import VERIFIED
from benchmarks.wise.scores import Scores

CATEGORY_IDS = {"culture": range(1, 401), "space-time": range(401, 641), "science": range(641, 1001)}
"""What `--category` asks of a single file."""


@dataclass(kw_only=True)
class ScoreFiles:
    """What the files hold."""

    scores: Scores = field(default_factory=lambda: Scores(protocol=VERIFIED))
    present: set[int] = field(default_factory=set)
    """Ids that have a line, with a usable score or not."""
    warnings: list[str] = field(default_factory=list)
    missing: list[int] = field(default_factory=list)
    """Ids that should be there and are not."""
    overall: float | None = None
    """None: ids are missing, or only a category was asked for."""


def read_score_files(paths: Sequence[Path], category: str = "all") -> ScoreFiles:
    """Read files as the original's summary does.

    Args:
        paths: in order.
        category: "all" wants every id of the benchmark in the union of the files; "culture", "space-time" and
            "science" want theirs in the file, if there is only one, and drop the file otherwise.
    """
    result = ScoreFiles()
    for path in paths:
        with path.open(encoding="utf-8") as handle:
            problems = [(number, _read_line(line, result)) for number, line in enumerate(handle, start=1)]
        result.warnings += [f"{path.name}, line {number}: {problem}" for number, problem in problems if problem]
    if category == "all":
        result.missing = sorted(set(VERIFIED.prompt_ids) - result.present)
        result.overall = None if result.missing else result.scores.overall
    elif len(paths) == 1:
        result.missing = sorted(set(CATEGORY_IDS[category]) - result.present)
        if result.missing:
            result.scores = Scores(protocol=VERIFIED)
    return result


def _read_line(line: str, result: ScoreFiles) -> str:
    """Count one line; returns what is wrong with it."""
    try:
        row: Any = json.loads(line)
    except ValueError:
        return "is not JSON"
    prompt_id = row.get("prompt_id") if isinstance(row, dict) else None
    if not isinstance(prompt_id, int):
        return "has no whole number as 'prompt_id'"
    result.present.add(prompt_id)
    score = row.get("score")
    if not isinstance(score, int | float):  # true is 1 in JSON's Python reading, and in the original
        return "has no number as 'score'"
    if score not in (0, 1):
        return f"has the score {score}, which is neither 0 nor 1"
    return "" if result.scores.add(prompt_id, float(score)) else f"has the id {prompt_id}, which does not exist"


def main(argv: Sequence[str]) -> int:
    """Print the score of files."""
    found = read_score_files([Path(word) for word in argv])
    for warning in found.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    for name, mean in found.scores.means.items():
        print(f"{name}: {mean:.4f} ({found.scores.categories[name].count})")
    print(f"WiScore: {found.overall:.4f}" if found.overall is not None else f"no WiScore, missing: {found.missing}")
    return 0 if found.overall is not None else 5


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
