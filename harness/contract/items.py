"""What a benchmark states about its `items.jsonl`: the numbers that follow from it without the scorer.

A benchmark with a verdict or a value per item has a `recompute.py` in the scorer's folder:

    def metrics_from_items(items: Sequence[Row], source: ItemSource) -> list[Metric]: ...
    def values_from_items(items: Sequence[Row], source: ItemSource) -> Iterator[ItemValue]: ...

The scorer calls the first one, and so does `harness verify`, on any machine: the file imports NumPy, modules of its own
folder, `harness.contract`, `harness.metrics` and `harness.scoring`, and nothing heavier. `harness compare` pairs the
values of two runs by the second one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RECOMPUTE_FILE = "recompute.py"
Row = Mapping[str, Any]
"""A line of `items.jsonl`."""


@dataclass(frozen=True, kw_only=True)
class ItemSource:
    """Where the items are from: what their meaning depends on."""

    benchmark: str
    options: Mapping[str, Any]
    """The options the scorer ran with, defaults included."""
    asset: Callable[[str], Path]
    """The only file of an asset, by name; MissingAsset where it is not here."""


@dataclass(frozen=True, kw_only=True)
class ItemValue:
    """What one item adds to one metric: the metric is the mean over its items, or over groups of them.

    With groups, it is the mean of the groups' means, weighted by `weight`.
    """

    metric: str
    category: str | None = None
    item: str
    """Unique within the metric: values of two runs are paired by it."""
    value: float
    prompt: str
    """Items with the same one are not independent of each other, such as four images of a prompt."""
    group: str = ""
    weight: float = 1.0
    """Of the group."""
