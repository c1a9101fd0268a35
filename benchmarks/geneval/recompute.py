"""GenEval's numbers from its verdicts, without images or networks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from benchmarks.geneval.notes import metrics
from harness.contract.items import ItemSource, ItemValue, Row
from harness.contract.record import Metric
from harness.scoring.verdicts import summarise, verdict_values


def metrics_from_items(items: Sequence[Row], source: ItemSource) -> list[Metric]:
    """Every metric, from the images that could be judged."""
    return list(metrics(summarise(_judged(items))))


def values_from_items(items: Sequence[Row], source: ItemSource) -> Iterator[ItemValue]:
    """The verdicts, and for each prompt whether any of its images is right."""
    return verdict_values(_judged(items), overall="geneval", images="correct_images")


def _judged(items: Sequence[Row]) -> list[Row]:
    return [row for row in items if "error" not in row]
