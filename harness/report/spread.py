"""Several sample sets of one model, drawn with different seeds: how far a score moves from one to the next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.contract.errors import UserError
from harness.contract.record import Metric, ScoreRecord
from harness.metrics.interval import Spread, spread_of
from harness.report.compare import ComparisonResult, MetricRow, metric_rows, value_of


@dataclass(frozen=True, kw_only=True)
class MetricSpread:
    """One metric over the sample sets."""

    metric: Metric
    """Name, label and direction, from the first set that has it."""
    spread: Spread | None
    obstacle: str = ""
    """Why there is no spread: values of runs that cannot be compared are not averaged either."""


def spreads(records: Sequence[ScoreRecord]) -> list[MetricSpread]:
    """Every metric of at least two records.

    Raises:
        UserError: two of the records are of the same images.
    """
    samples = [record.digests["samples"] for record in records if "samples" in record.digests]
    if len(set(samples)) < len(samples):
        raise UserError(
            "Two of the sample sets hold the same images, which tell nothing about the spread; leave one out."
        )
    return [_spread(row) for row in metric_rows(records)]


def _spread(row: MetricRow) -> MetricSpread:
    if row.verdict.result is ComparisonResult.NOT_COMPARABLE:
        return MetricSpread(metric=row.any_metric, spread=None, obstacle=row.verdict.reason)
    values = [value_of(cell) for cell in row.cells if cell is not None]
    return MetricSpread(metric=row.any_metric, spread=spread_of(values))
