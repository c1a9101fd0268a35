"""The numbers of demo_t2i from its verdicts: all but the one of real digits, which are no items."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from benchmarks.demo_t2i.interface import METRICS
from harness.contract.interface import Metrics
from harness.contract.items import ItemSource, ItemValue, Row
from harness.contract.record import Metric
from harness.metrics.interval import wilson_interval
from harness.scoring.verdicts import summarise, verdict_values

KINDS = {"digit_accuracy": "digit_right", "colour_accuracy": "colour_right"}
"""Metric -> field of an item."""


def metrics_from_items(items: Sequence[Row], source: ItemSource) -> list[Metric]:
    """The mean over the tasks, the tasks, and the kinds of errors."""
    summary = summarise(items)
    found, prompts = summary.correct_prompts, summary.prompts
    return [
        Metrics(METRICS).make("demo_t2i", summary.overall, n=summary.images),
        *(
            share("task_score", [row["correct"] for row in items if row["tag"] == tag], category=tag)
            for tag in summary.tasks
        ),
        *(share(metric, (row[field] for row in items)) for metric, field in KINDS.items()),
        share("correct_prompts", [True] * found + [False] * (prompts - found)),
    ]


def values_from_items(items: Sequence[Row], source: ItemSource) -> Iterator[ItemValue]:
    """The verdicts, the kinds of errors, and for each prompt whether any of its images is right."""
    yield from verdict_values(items, overall="demo_t2i")
    for metric, field in KINDS.items():
        for row in items:
            yield ItemValue(metric=metric, item=row["id"], value=float(row[field]), prompt=row["prompt"])


def share(name: str, right: Iterable[bool], category: str | None = None) -> Metric:
    """Share of `right`, with its interval."""
    hits = [bool(one) for one in right]
    interval = wilson_interval(sum(hits), len(hits))
    return Metrics(METRICS).make(name, sum(hits) / len(hits), n=len(hits), interval=interval, category=category)
