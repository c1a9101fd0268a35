"""What goes into GenEval's record: metrics, and what a reader of the numbers must know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.geneval.interface import METRICS
from harness.contract.interface import Metrics
from harness.contract.record import Metric
from harness.metrics.interval import wilson_interval
from harness.scoring.verdicts import Summary

FULL_COUNT = 553 * 4
_OPENING = "a photo of "
"""The beginning of every prompt of `geneval`, and of none of `geneval_long`."""


def metrics(summary: Summary) -> Sequence[Metric]:
    """The numbers of the record: overall, share of images, share of prompts, and one per task."""
    make = Metrics(METRICS).make
    rows = [
        make("geneval", summary.overall, n=summary.images),
        _share("correct_images", summary.correct_images, summary.images),
        _share("correct_prompts", summary.correct_prompts, summary.prompts),
    ]
    return rows + [_share("task_score", task.correct, task.images, tag) for tag, task in summary.tasks.items()]


def _share(name: str, hits: int, count: int, category: str | None = None) -> Metric:
    interval = wilson_interval(hits, count)
    return Metrics(METRICS).make(name, hits / count, n=count, interval=interval, category=category)


def notes(benchmark: str, judged: Sequence[Mapping[str, Any]], files: Mapping[str, Path], count: int) -> list[str]:
    """Deviations from the published protocol, and what makes the numbers meaningless.

    Args:
        benchmark: `geneval` or `geneval_long`.
        judged: images with a verdict.
        files: the scorer's assets.
        count: number of input images.
    """
    found = []
    strange = [row for row in judged if row["prompt"].startswith(_OPENING) != (benchmark == "geneval")]
    if strange:
        found.append(
            f"{len(strange):,} images have prompts that are not those of {benchmark}, such as "
            f"{strange[0]['prompt'][:60]!r}: geneval's begin with {_OPENING!r}, geneval_long's do not."
        )
    if count != FULL_COUNT:
        found.append(
            f"Computed from {count:,} images; published numbers use {FULL_COUNT:,}: 553 prompts, 4 images each."
        )
    if not any(row["details"] for row in judged):
        found.append("No object was found in any image: look at the images, and at the weights of the detector.")
    found += [
        f"{name} has random weights: the numbers mean nothing."
        for name, path in files.items()
        if path.suffix == ".json"
    ]
    return found
