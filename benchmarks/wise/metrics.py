"""What goes into WISE's record: metrics, their spread over rounds, and what a reader must know."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.wise.interface import METRICS, Options
from benchmarks.wise.protocols import WiseProtocol
from benchmarks.wise.scores import Scores, aggregate
from harness.contract.files import write_atomically
from harness.contract.interface import Metrics
from harness.contract.record import Metric
from harness.metrics.interval import wilson_interval

Row = Mapping[str, Any]


def metrics(protocol: WiseProtocol, rows: Sequence[Row], repeats: int) -> list[Metric]:
    """WiScore over all rounds, its lowest and highest where there are several, and each category."""
    scored = [row for row in rows if row["score"] is not None]
    pooled = aggregate(protocol, ((row["prompt_id"], row["score"]) for row in scored))
    found = [
        Metrics(METRICS).make("wiscore", pooled.overall, n=len(scored)),
        *spread_metrics(protocol, scored, repeats),
    ]
    return found + [
        _category_metric(name, pooled, repeats) for name in protocol.categories if name in pooled.categories
    ]


def spread_metrics(protocol: WiseProtocol, scored: Sequence[Row], repeats: int) -> list[Metric]:
    """Lowest and highest WiScore of the rounds; nothing for one round, or where a round has none."""
    if repeats == 1:
        return []
    rounds = [[row for row in scored if row["round"] == number] for number in range(repeats)]
    overall = [aggregate(protocol, ((row["prompt_id"], row["score"]) for row in part)).overall for part in rounds]
    known = [value for value in overall if value is not None]
    if len(known) < repeats:
        return []
    count, make = len(scored) // repeats, Metrics(METRICS).make
    return [make("wiscore_lowest", min(known), n=count), make("wiscore_highest", max(known), n=count)]


def _category_metric(name: str, pooled: Scores, repeats: int) -> Metric:
    category = pooled.categories[name]
    # Answers about one image in several rounds are not independent.
    is_binomial = category.is_share and repeats == 1
    interval = wilson_interval(int(category.total), category.count) if is_binomial else None
    return Metrics(METRICS).make("category_score", category.mean, n=category.count, interval=interval, category=name)


def notes(protocol: WiseProtocol, rows: Sequence[Row], options: Options, count: int) -> list[str]:
    """What a reader of the number must know."""
    found = [
        f"Judged by {options.judge}, revision {options.judge_revision or 'not stated'}; the judge moves the score."
    ]
    if options.system_prompt is not None or options.user_prompt is not None:
        found.append("The judge was asked in a wording of the user's; leaderboards use another.")
    elif options.wording == "own":
        found.append("The judge was asked in this project's own wording; leaderboards use another.")
    if count < len(protocol.prompt_ids):
        found.append(f"Computed from {count:,} images; published numbers use {len(protocol.prompt_ids):,}.")
    open_questions = sum(row["score"] is None for row in rows)
    if open_questions:
        found.append(
            f"Incomplete: {open_questions} of {len(rows)} answers are missing and in no mean; the original would "
            "report no overall score."
        )
    scored = {row["prompt_id"] for row in rows if row["score"] is not None}
    if {protocol.category_of(prompt_id) for prompt_id in scored} != set(protocol.categories):
        found.append("A category has no score, so there is no overall score.")
    return found


def write_score_lines(path: Path, rows: Sequence[Row]) -> None:
    """The scores of the first round as the original's summary reads them."""
    with write_atomically(path, "w") as handle:
        for row in sorted(rows, key=lambda row: row["prompt_id"]):
            if row["round"] == 0 and row["score"] is not None:
                handle.write(json.dumps({name: row[name] for name in ("prompt_id", "Subcategory", "score")}) + "\n")
