"""Whether a run has the numbers of a recorded one: `harness check --against`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from harness.contract.errors import UserError, pick
from harness.contract.fields import Within, build
from harness.contract.record import Metric, ScoreRecord
from harness.contract.yaml import read_yaml
from harness.metrics.interval import spread_of
from harness.report.compare import ComparisonResult, MetricRow, metric_rows, value_of
from harness.reproduce.frozen import requests_of
from harness.store.run_record import Run

Verdict = Literal[
    "equal", "within the tolerance", "within the interval", "within the spread", "differs", "not comparable"
]


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """How far a metric may be off; the larger of the two counts."""

    abs: Annotated[float, Within(0)] = 0.0
    rel: Annotated[float, Within(0)] = 0.0

    def allows(self, got: float, recorded: float) -> bool:
        """Whether `got` is near enough to the recorded value."""
        return abs(got - recorded) <= max(self.abs, self.rel * abs(recorded))


Tolerances = Mapping[tuple[str, str], Tolerance]
"""By benchmark and metric; that of a metric is also that of its categories."""


@dataclass(frozen=True, kw_only=True)
class Held:
    """One metric beside its recorded value."""

    benchmark: str
    metric: Metric
    recorded: float | None
    """With several records, the mean."""
    got: float | None
    verdict: Verdict
    why: str = ""


def read_tolerances(path: Path, recorded: Run) -> Tolerances:
    """A tolerance file: benchmark -> metric -> `abs`, `rel` or both, in YAML.

    Raises:
        UserError: the file is none, or names what the recorded run does not have.
    """
    rows, found = read_yaml(path), {}
    for name, metrics in _mapping(rows, path, "benchmark: {metric: {rel: 1.0e-3}}").items():
        score = pick(recorded.scores, name, "recorded score", f"harness show {recorded.folder}")
        known = {metric.name: metric for metric in score.metrics}
        for metric, row in _mapping(metrics, path, f"{name}: {{metric: {{rel: 1.0e-3}}}}").items():
            pick(known, metric, f"metric of {name}", f"harness show {recorded.folder}")
            found[name, metric] = build(Tolerance, row, str(path), path=f"{name}.{metric}")
    return found


def _mapping(value: Any, path: Path, form: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise UserError(f"{path}: is not a tolerance file; write it as   {form}")
    return value


def hold(run: Run, recorded: Sequence[Run], tolerances: Tolerances) -> Iterator[Held]:
    """Every metric of recorded runs beside that of a new one.

    Args:
        run: the new one.
        recorded: one run; or several that differ in their seeds, whose spread is then what a number may be off by.
        tolerances: what a number may be off by besides.
    """
    obstacle = _requests_obstacle(run, recorded)
    for name, score in recorded[0].scores.items():
        scores = [other.scores[name] for other in recorded if name in other.scores]
        if name not in run.scores:
            why = f"the run has no score of {name}"
            for metric in score.metrics:
                yield Held(benchmark=name, metric=metric, recorded=metric.value, got=None, verdict="differs", why=why)
        else:
            yield from _of_benchmark(name, run.scores[name], scores, tolerances, obstacle)


def _of_benchmark(
    name: str, now: ScoreRecord, recorded: Sequence[ScoreRecord], tolerances: Tolerances, obstacle: str
) -> Iterator[Held]:
    obstacle = obstacle or _judges_obstacle([*recorded, now])
    for row in metric_rows([*recorded, now]):
        before, got = [cell for cell in row.cells[:-1] if cell is not None], row.cells[-1]
        verdict: Verdict
        why = obstacle or row.note or _row_obstacle(row)
        if why:
            verdict = "not comparable"
        elif got is None or len(before) < len(recorded):
            verdict, why = "differs", f"the {'run' if got is None else 'record'} does not have it"
        else:
            verdict = _verdict(got, before, tolerances.get((name, got.name), Tolerance()))
        yield Held(
            benchmark=name,
            metric=row.any_metric,
            recorded=_mean(before),
            got=got.value if got else None,
            verdict=verdict,
            why=why,
        )


def _verdict(got: Metric, before: Sequence[Metric], tolerance: Tolerance) -> Verdict:
    values, value = [value_of(metric) for metric in before], value_of(got)
    if all(other == value or (math.isnan(other) and math.isnan(value)) for other in values):
        return "equal"
    middle = sum(values) / len(values)
    if tolerance.allows(value, middle):
        return "within the tolerance"
    if len(values) > 1:
        return "within the spread" if abs(value - middle) <= spread_of(values).next_within else "differs"
    low, high = before[0].interval or (math.nan, math.nan)
    return "within the interval" if low <= value <= high else "differs"


def _mean(metrics: Sequence[Metric]) -> float | None:
    values = [value_of(metric) for metric in metrics]
    return sum(values) / len(values) if values else None


def _row_obstacle(row: MetricRow) -> str:
    """Why values of a metric that all have do not compare: other units, or other numbers of items, as with a limit."""
    values = [math.nan if cell is None else value_of(cell) for cell in row.cells]
    is_obstacle = row.verdict.result is ComparisonResult.NOT_COMPARABLE and not any(map(math.isnan, values))
    return row.verdict.reason if is_obstacle else ""


def _requests_obstacle(run: Run, recorded: Sequence[Run]) -> str:
    """Another limit, or other prompts; other seeds and labels give other images of the same model."""
    for other in recorded:
        limits = [one.record.options.get("limit") for one in (other, run)]
        if limits[0] != limits[1]:
            return f"measured with different limit ({limits[0]} and {limits[1]})"
        for name in other.scores.keys() & run.scores.keys():
            prompts = [_prompts(one, one.scores[name].benchmark) for one in (other, run)]
            if None not in prompts and prompts[0] != prompts[1]:
                return "the images were drawn for other prompts"
    return ""


def _prompts(run: Run, benchmark: str) -> list[tuple[str, str | None]] | None:
    requests = requests_of(run, benchmark)
    return None if requests is None else [(request.id, request.prompt) for request in requests]


def _judges_obstacle(scores: Sequence[ScoreRecord]) -> str:
    """A judge that its server describes in another way."""
    judges = [score.environment.get("judge") for score in scores]
    known = [(judge.get("id"), judge.get("revision")) for judge in judges if isinstance(judge, Mapping)]
    names = [" ".join(str(word) for word in judge if word) for judge in dict.fromkeys(known)]
    return f"measured by different judges ({' and '.join(names)})" if len(names) > 1 else ""


def environment_notes(run: Run, recorded: Run) -> list[str]:
    """What a reader of a difference looks at first: whether the images are the same, and what differs around them."""
    notes = []
    for name in recorded.scores.keys() & run.scores.keys():
        before, now = recorded.scores[name], run.scores[name]
        same = before.digests.get("samples") == now.digests.get("samples")
        notes.append(f"{name}: {'the same' if same else 'other'} images as in the record.")
        for key in sorted(before.environment.keys() & now.environment.keys()):
            if before.environment[key] != now.environment[key]:
                notes.append(f"{name}: {key} was {before.environment[key]}, is {now.environment[key]}.")
    return notes
