"""What goes into DPG-Bench's record: prompts scored from answers, and the metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.dpg.interface import METRICS
from benchmarks.dpg.questions import Item
from benchmarks.dpg.scores import ImageScore, MissingParent, category_scores, dpg_score, score_image
from harness.contract.interface import Metrics
from harness.contract.record import Metric
from harness.metrics.interval import wilson_interval

IMAGES_PER_PROMPT = 4
"""Further ones are ignored, since the original's grid has no room for them."""
FULL_COUNT = 1065 * IMAGES_PER_PROMPT

Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Scored:
    """Prompts scored by one reading of the question table."""

    items: Mapping[str, Item]
    prompts: Sequence[ImageScore]
    dropped: Sequence[str]
    """Prompts that the original leaves out: a question depends on one that is not asked, or no question is asked."""


def score_prompts(rows: Sequence[Row], items: Mapping[str, Item], *, lenient: bool = False) -> Scored:
    """Score prompts from answered images. A prompt's score is the mean over those of its images that were answered.

    Args:
        rows: with `key`, `tile` and `answers` (number of the question, as text -> answer).
        items: the questions that count.
        lenient: keep prompts with a missing parent and ignore it.
    """
    tiles: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: row["tile"]):
        tiles.setdefault(row["key"], []).append(row)
    prompts, dropped = [], []
    for key in sorted(tiles):
        if key not in items:
            dropped.append(key)
            continue
        numbers = [str(question.number) for question in items[key].questions]
        answers = [[row["answers"][number] for number in numbers] for row in tiles[key]]
        try:
            prompts.append(score_image(key, items[key], answers, lenient=lenient))
        except MissingParent:
            dropped.append(key)
    return Scored(items=items, prompts=prompts, dropped=dropped)


def metrics(compared: Scored, corrected: Scored) -> list[Metric]:
    """The score as the original computes it, the score with every question, and the original's categories."""
    make = Metrics(METRICS).make
    found = [
        make(name, dpg_score(scored.prompts) if scored.prompts else None, n=len(scored.prompts))
        for name, scored in (("dpg", compared), ("dpg_corrected", corrected))
    ]
    for name, broad in (("category_score", True), ("detail_score", False)):
        for category, answers in category_scores(compared.items, compared.prompts, broad=broad).items():
            low, high = wilson_interval(answers.yes, answers.questions)
            interval = 100 * low, 100 * high
            found.append(make(name, answers.score, n=answers.questions, category=category, interval=interval))
    return found
