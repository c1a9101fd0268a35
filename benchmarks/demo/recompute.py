"""The accuracy of the demo from its items; its distances need features."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from benchmarks.demo.interface import METRICS
from harness.contract.interface import Metrics
from harness.contract.items import ItemSource, ItemValue, Row
from harness.contract.record import Metric
from harness.metrics.interval import wilson_interval


def metrics_from_items(items: Sequence[Row], source: ItemSource) -> list[Metric]:
    """How often the digit that was read is the one that was asked for."""
    hits = sum(row["predicted"] == row["label"] for row in items)
    return [accuracy("class_accuracy", hits, len(items))]


def values_from_items(items: Sequence[Row], source: ItemSource) -> Iterator[ItemValue]:
    """The same, image by image."""
    for row in items:
        right = float(row["predicted"] == row["label"])
        yield ItemValue(metric="class_accuracy", item=row["id"], value=right, prompt=row["id"])


def accuracy(name: str, hits: int, count: int) -> Metric:
    """Share of right images, with its interval."""
    return Metrics(METRICS).make(name, hits / count, n=count, interval=wilson_interval(hits, count))
