"""Several sample sets of one model, drawn with different seeds: how far a score moves from one to the next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.contract.record import Metric, ScoreRecord
from harness.metrics.interval import Spread, spread_of


@dataclass(frozen=True, kw_only=True)
class MetricSpread:
    """One metric over the sample sets."""

    metric: Metric
    """As the first set has it: name, label, direction."""
    spread: Spread


def spreads(records: Sequence[ScoreRecord]) -> list[MetricSpread]:
    """Every metric that is a number in all the records, in the order of the first. Needs at least two records."""
    found = []
    for metric in records[0].metrics:
        values = [_value(record, metric) for record in records]
        numbers = [value for value in values if value is not None]
        if len(numbers) == len(records):
            found.append(MetricSpread(metric=metric, spread=spread_of(numbers)))
    return found


def _value(record: ScoreRecord, metric: Metric) -> float | None:
    try:
        return record.metric(metric.name, metric.category).value
    except KeyError:
        return None
