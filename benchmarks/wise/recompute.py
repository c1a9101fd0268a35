"""WiScore from the judge's scores, without images or judge."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from benchmarks.wise.metrics import metrics
from benchmarks.wise.protocols import PROTOCOLS
from harness.contract.items import ItemSource, ItemValue, Row
from harness.contract.record import Metric


def metrics_from_items(items: Sequence[Row], source: ItemSource) -> list[Metric]:
    """Every metric, from the answers that hold a score."""
    return metrics(PROTOCOLS[source.benchmark], items, int(source.options["repeats"]))


def values_from_items(items: Sequence[Row], source: ItemSource) -> Iterator[ItemValue]:
    """The score of each image and round, for its category and, by the category's weight, for the whole."""
    protocol = PROTOCOLS[source.benchmark]
    for row in items:
        category = protocol.category_of(row["prompt_id"])
        if row["score"] is None or category is None:
            continue
        item, value, prompt = f"{row['id']}#{row['round']}", float(row["score"]), row["id"]
        weight = protocol.weights[category]
        yield ItemValue(metric="wiscore", item=item, value=value, prompt=prompt, group=category, weight=weight)
        yield ItemValue(metric="category_score", category=category, item=item, value=value, prompt=prompt)
