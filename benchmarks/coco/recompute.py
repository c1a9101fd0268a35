"""CLIPScore from its items; FID needs features."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from benchmarks.coco.interface import METRICS
from harness.contract.interface import Metrics
from harness.contract.items import ItemSource, ItemValue, Row
from harness.contract.record import Metric
from harness.metrics.clip_score import clip_score
from harness.metrics.interval import bootstrap_interval


def metrics_from_items(items: Sequence[Row], source: ItemSource) -> list[Metric]:
    """CLIPScore, with its bootstrap interval."""
    cosines = np.array([row["cosine"] for row in items], dtype=np.float64)
    interval = bootstrap_interval(100.0 * cosines) or (np.nan, np.nan)
    return [Metrics(METRICS).make("clip_score", clip_score(cosines), n=len(cosines), interval=interval)]


def values_from_items(items: Sequence[Row], source: ItemSource) -> Iterator[ItemValue]:
    """The same, image by image."""
    for row in items:
        yield ItemValue(metric="clip_score", item=row["id"], value=100.0 * row["cosine"], prompt=row["id"])
