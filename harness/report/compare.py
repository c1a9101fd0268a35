"""Which of several models is better on a metric, and when the numbers cannot tell.

A difference counts as a win only when it is in the better direction, was measured the same way on both sides (version,
assets, options, unit, about the same number of items), and the intervals, where they exist, do not overlap. How the
images were drawn (guidance, temperature) may differ, since that is what people compare; a note says so.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from enum import Enum
from typing import Any

from harness.contract.record import Metric, ScoreRecord
from harness.report.formats import arrow, format_together, in_words, plural

LARGEST_N_GAP = 0.01
"""Counts further apart than this share make two values incomparable (FID falls with n); a few unscored items do not."""

DRAWN = {"samples", "requests"}
"""Digests of what is compared; all others are of what measures it."""
NOT_MEASURING = {
    *("batch_size", "backend", "device"),  # how a number is computed; a note says when backends differ
    *("duplicates", "reference_split", "references", "samples_are"),  # what is refused
    *("exact", "ema"),  # whether there are more metrics; which weights are judged
}
"""Options that do not change the meaning of a metric."""


class ComparisonResult(Enum):
    """What a row of a score table lets us conclude."""

    SINGLE = "single"
    """One model only: nothing to compare."""
    BETTER = "better"
    WITHIN_INTERVAL = "within the interval"
    TIE = "tie"
    NOT_COMPARABLE = "not comparable"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The result of a comparison, who leads (a column index), and the reason when the numbers do not show it."""

    result: ComparisonResult
    leader: int | None = None
    reason: str = ""

    @property
    def winner(self) -> int | None:
        """The column to mark as better; none for a leader within the interval."""
        return self.leader if self.result is ComparisonResult.BETTER else None


@dataclass(frozen=True, kw_only=True)
class MetricRow:
    """One metric across all models; a model that lacks it has None."""

    name: str
    category: str | None
    cells: tuple[Metric | None, ...]
    verdict: Verdict
    note: str = ""
    """What else differs between the models: how their images were drawn, or what computed the number."""

    @property
    def any_metric(self) -> Metric:
        """Any metric of the row, for what all share (label, unit, direction)."""
        return next(cell for cell in self.cells if cell is not None)

    @property
    def title(self) -> str:
        """The label of the metric for people."""
        return self.any_metric.label or self.name

    @property
    def arrow(self) -> str:
        """Up when higher is better."""
        return arrow(self.any_metric.higher_is_better)


def value_of(metric: Metric) -> float:
    """The value as float; NaN where the record has none."""
    return math.nan if metric.value is None else metric.value


def metric_rows(records: Sequence[ScoreRecord]) -> list[MetricRow]:
    """Line up the metrics of several records, in the order in which the records first state them."""
    tables = [{(m.name, m.category): m for m in record.metrics} for record in records]
    keys = list(dict.fromkeys(key for table in tables for key in table))
    obstacle = _versions_obstacle(records) or _settings_obstacle(records) or _images_obstacle(records)
    note = " ".join(filter(None, (protocol_note(records), backend_note(records))))
    rows = []
    for name, category in keys:
        cells = tuple(table.get((name, category)) for table in tables)
        verdict = Verdict(result=ComparisonResult.NOT_COMPARABLE, reason=obstacle) if obstacle else judge(cells)
        rows.append(MetricRow(name=name, category=category, cells=cells, verdict=verdict, note=note))
    return rows


def protocol_note(records: Sequence[ScoreRecord]) -> str:
    """One sentence when the images of several records were drawn differently, or not all records say how."""
    protocols = [record.protocol for record in records]
    if not any(protocols):
        return ""
    if not all(protocols):
        return "Not every record says how its images were drawn (guidance, temperature)."
    differing = list(_differing(protocols, set().union(*protocols)))
    return f"The images were drawn with different {in_words(differing)}." if differing else ""


def backend_note(records: Sequence[ScoreRecord]) -> str:
    """One sentence when several records were computed by different backends; their numbers agree up to rounding."""
    differing = list(_differing([record.options for record in records if "backend" in record.options], {"backend"}))
    return f"The numbers were computed with different {in_words(differing)}." if differing else ""


def judge(cells: Sequence[Metric | None]) -> Verdict:
    """Decide which of the models is better on one metric. Intervals are closed; touching ones overlap."""
    if len(cells) < 2:
        return Verdict(result=ComparisonResult.SINGLE)
    metrics = [cell for cell in cells if cell is not None]
    obstacle = _cells_obstacle(cells, metrics)
    if obstacle:
        return Verdict(result=ComparisonResult.NOT_COMPARABLE, reason=obstacle)
    sign = 1 if metrics[0].higher_is_better else -1
    order = sorted(range(len(metrics)), key=lambda i: -sign * value_of(metrics[i]))
    best, rest = metrics[order[0]], [metrics[i] for i in order[1:]]
    if value_of(best) == value_of(rest[0]):
        return Verdict(result=ComparisonResult.TIE)
    if any(_overlap(best, other) for other in rest):
        return Verdict(result=ComparisonResult.WITHIN_INTERVAL, leader=order[0])
    return Verdict(result=ComparisonResult.BETTER, leader=order[0])


def summary(labels: Sequence[str], rows: Sequence[MetricRow]) -> list[str]:
    """Sum up in sentences which model is better on what. Categories count only if a benchmark has no overall metric."""
    overall = [row for row in rows if row.category is None] or list(rows)
    if len(labels) < 2 or not overall:
        return []
    sentences = [_wins(labels, overall)]
    close = [row for row in overall if row.verdict.result is ComparisonResult.WITHIN_INTERVAL]
    if close:
        sentences.append(
            f"On {in_words([row.title for row in close])} the difference lies within the interval, "
            "so no model is better."
        )
    ties = [row.title for row in overall if row.verdict.result is ComparisonResult.TIE]
    if ties:
        sentences.append(f"No difference on {in_words(ties)}.")
    unclear = [row for row in overall if row.verdict.result is ComparisonResult.NOT_COMPARABLE]
    for reason in dict.fromkeys(row.verdict.reason for row in unclear):
        names = in_words([row.title for row in unclear if row.verdict.reason == reason])
        sentences.append(f"{names} cannot be compared: {reason}.")
    return sentences + [note for note in dict.fromkeys(row.note for row in overall) if note]


def _wins(labels: Sequence[str], rows: Sequence[MetricRow]) -> str:
    parts = []
    for index, label in enumerate(labels):
        won = [_with_numbers(row, index) for row in rows if row.verdict.winner == index]
        parts.append((len(won), f"{label} is better on {len(won)}" if won else f"{label} on none", in_words(won)))
    if not any(count for count, _, _ in parts):
        return f"No model is clearly better on any of {plural(len(rows), 'metric')}."
    parts.sort(key=lambda part: -part[0])
    clauses = [f"{text}: {won}" if won else text for _, text, won in parts]
    return f"Of {plural(len(rows), 'metric')}, " + "; ".join(clauses) + "."


def _with_numbers(row: MetricRow, winner: int) -> str:
    values = format_together([value_of(cell) for cell in row.cells if cell is not None])
    others = [value for index, value in enumerate(values) if index != winner]
    return f"{row.title} {row.arrow} ({values[winner]} against {in_words(others)})"


def _versions_obstacle(records: Sequence[ScoreRecord]) -> str:
    versions = dict.fromkeys(f"{record.benchmark} version {record.benchmark_version}" for record in records)
    return f"measured by {in_words(list(versions))}" if len(versions) > 1 else ""


def _settings_obstacle(records: Sequence[ScoreRecord]) -> str:
    """Other assets, or other options where the records know them: a newer record may have one that an older lacks."""
    digests, options = [record.digests for record in records], [record.options for record in records]
    names = [name for name in sorted(set().union(*digests) - DRAWN) if len({row.get(name) for row in digests}) > 1]
    shared = set(options[0]).intersection(*options) - NOT_MEASURING if options else set()
    differing = [*names, *_differing(options, shared)]
    return f"measured with different {in_words(differing)}" if differing else ""


def _images_obstacle(records: Sequence[ScoreRecord]) -> str:
    """Images of other number or size, where all records say which."""
    images = [record.images for record in records]
    differing = list(_differing(images, set(images[0]).intersection(*images))) if images else []
    return f"measured on other images: {in_words(differing)}" if differing else ""


def _differing(rows: Sequence[Mapping[str, Any]], names: Set[str]) -> Iterator[str]:
    """Names whose values are not the same in all rows, each with the values, in the order of the rows."""
    for name in sorted(names):
        values = [row.get(name) for row in rows]
        if any(value != values[0] for value in values):
            yield f"{name} ({in_words([textwrap.shorten(str(value), 40) for value in values])})"


def _cells_obstacle(cells: Sequence[Metric | None], metrics: Sequence[Metric]) -> str:
    if len(metrics) < len(cells):
        return "not every model has it"
    if any(math.isnan(value_of(metric)) for metric in metrics):
        return "a value is not a number"
    if len({(metric.unit, metric.higher_is_better) for metric in metrics}) > 1:
        return "the units or directions differ"
    counts = [metric.n for metric in metrics]
    if max(counts) - min(counts) > LARGEST_N_GAP * max(counts):
        return f"measured on different numbers of items ({in_words([f'{n:,}' for n in counts])})"
    return ""


def _overlap(one: Metric, other: Metric) -> bool:
    if one.interval is None and other.interval is None:
        return False
    low_one, high_one = one.interval or (value_of(one), value_of(one))
    low_other, high_other = other.interval or (value_of(other), value_of(other))
    return low_one <= high_other and low_other <= high_one
