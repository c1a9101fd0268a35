"""Two runs item by item: the difference of every metric, what flipped, and whether the data can tell the two apart.

Runs pair where the same prompts (or labels) were drawn with the same seeds; how they were drawn may differ, since that
is what people compare. A distance has no items: only the spread over several sample sets of each model tells.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from harness.catalog.benchmarks import Benchmark, read_recompute
from harness.contract.errors import UserError
from harness.contract.items import ItemValue
from harness.contract.record import Metric, ScoreRecord, read_items
from harness.metrics.paired import Stratum, difference, mcnemar_exact, paired_interval, welch_interval
from harness.report.compare import ComparisonResult, MetricRow, metric_rows, value_of
from harness.reproduce.frozen import requests_of
from harness.reproduce.verify import FindAsset, source_of
from harness.store.run_record import Run

Conclusion = Literal["better", "worse", "the same", "cannot be told apart", "cannot be told", "not comparable"]
"""Of the second run; "cannot be told": one number of each says nothing about how much it varies."""

SIGNIFICANT = 0.05
_KINDS_OF_VERDICT = ({0.0, 1.0}, {0.0, 100.0})

Key = tuple[str, str | None]
"""Name and category of a metric."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One metric of two runs, or of two groups of runs."""

    benchmark: str
    metric: Metric
    """Name, label and direction."""
    before: float | None
    """Of the first run; of a group, the mean."""
    after: float | None
    conclusion: Conclusion
    why: str = ""
    interval: tuple[float, float] | None = None
    """95 % interval of after - before."""
    p: float | None = None
    """McNemar's exact test over the items, where every value is right or wrong."""
    pairs: int = 0
    """Items that both have."""
    gained: tuple[str, ...] = ()
    """Items that only the second run gets right."""
    lost: tuple[str, ...] = ()
    """Items that only the first one gets right."""

    @property
    def difference(self) -> float | None:
        """after - before."""
        return None if self.before is None or self.after is None else self.after - self.before

    @property
    def loss(self) -> float | None:
        """By how much the second is worse; negative where it is better."""
        if self.difference is None:
            return None
        return -self.difference if self.metric.higher_is_better else self.difference


def differences(
    before: Run, after: Run, benchmarks: Mapping[str, Benchmark], find_asset: FindAsset
) -> Iterator[Difference]:
    """Every metric of the benchmarks that two runs share.

    Args:
        before, after: the two runs, or frozen folders.
        benchmarks: by id.
        find_asset: as for `verify`.
    """
    for name in (name for name in before.scores if name in after.scores):
        scores = before.scores[name], after.scores[name]
        values, why = _paired_values(name, (before, after), benchmarks.get(scores[0].benchmark), find_asset)
        for row in metric_rows(scores):
            yield _compared(name, row, values.get((row.name, row.category)), why)


def group_differences(before: Sequence[Run], after: Sequence[Run]) -> Iterator[Difference]:
    """Every metric of two groups of runs, each of several sample sets of one model, by the spread within the groups.

    Raises:
        UserError: a group has fewer than two runs.
    """
    if min(len(before), len(after)) < 2:
        raise UserError("A spread needs at least two runs of each model: harness compare A1,A2 B1,B2")
    runs = [*before, *after]
    for name in (name for name in runs[0].scores if all(name in run.scores for run in runs)):
        for row in metric_rows([run.scores[name] for run in runs]):
            yield _of_groups(name, row, len(before))


# --- one metric ------------------------------------------------------------------------------------------------------


def _compared(name: str, row: MetricRow, pairs: list[tuple[ItemValue, ItemValue]] | None, why: str) -> Difference:
    if row.verdict.result is ComparisonResult.NOT_COMPARABLE:
        return _stated(name, row, "not comparable", row.verdict.reason)
    if not pairs:
        return _unpaired(name, row, why)
    strata = list(_strata(pairs))
    interval = paired_interval(strata)
    found = _stated(name, row, "cannot be told", "" if interval else "a group has too few prompts")
    found = replace(found, interval=interval, pairs=len(pairs))
    if _are_verdicts(pairs):
        gained = tuple(a.item for a, b in pairs if b.value > a.value)
        lost = tuple(a.item for a, b in pairs if b.value < a.value)
        found = replace(found, gained=gained, lost=lost, p=mcnemar_exact(len(gained), len(lost)))
    return replace(found, conclusion=_conclusion(row.any_metric, difference(strata), interval, found.p))


def _stated(name: str, row: MetricRow, conclusion: Conclusion, why: str = "") -> Difference:
    """The two values, as the records state them."""
    before, after = (None if cell is None else cell.value for cell in row.cells)
    return Difference(benchmark=name, metric=row.any_metric, before=before, after=after, conclusion=conclusion, why=why)


def _unpaired(name: str, row: MetricRow, why: str) -> Difference:
    """By the intervals of the two numbers, where both have one."""
    if row.verdict.result is ComparisonResult.TIE:
        return _stated(name, row, "the same")
    if any(cell is None or cell.interval is None for cell in row.cells):
        why = f"{why}, and it has no interval: only the spread over several sample sets tells"
        return _stated(name, row, "cannot be told", why)
    leaders: dict[int | None, Conclusion] = {0: "worse", 1: "better"}
    return _stated(name, row, leaders.get(row.verdict.winner, "cannot be told apart"), why)


def _of_groups(name: str, row: MetricRow, count: int) -> Difference:
    if row.verdict.result is ComparisonResult.NOT_COMPARABLE:
        why = row.verdict.reason
        return Difference(
            benchmark=name, metric=row.any_metric, before=None, after=None, conclusion="not comparable", why=why
        )
    values = [value_of(cell) for cell in row.cells if cell is not None]
    before, after = values[:count], values[count:]
    interval, middle = welch_interval(before, after), float(np.mean(after) - np.mean(before))
    return Difference(
        benchmark=name,
        metric=row.any_metric,
        before=float(np.mean(before)),
        after=float(np.mean(after)),
        interval=interval,
        conclusion=_conclusion(row.any_metric, middle, interval, None),
    )


def _conclusion(metric: Metric, middle: float, interval: tuple[float, float] | None, p: float | None) -> Conclusion:
    """Better or worse only if the interval leaves out 0 and, for verdicts, the flips do not look like chance."""
    if interval is None or interval[0] <= 0 <= interval[1] or (p is not None and p >= SIGNIFICANT):
        return "the same" if interval == (0.0, 0.0) else "cannot be told apart"
    return "better" if (middle > 0) == metric.higher_is_better else "worse"


# --- items -----------------------------------------------------------------------------------------------------------


def _paired_values(
    name: str, runs: tuple[Run, Run], benchmark: Benchmark | None, find_asset: FindAsset
) -> tuple[dict[Key, list[tuple[ItemValue, ItemValue]]], str]:
    """Metric -> the values of the items that both runs have, and why other metrics have none."""
    recompute = read_recompute(benchmark) if benchmark else None
    if recompute is None:
        return {}, "no item states it"
    if problem := _requests_problem(name, runs):
        return {}, problem
    sides = []
    for run in runs:
        score = run.scores[name]
        try:
            items = list(read_items(_score_folder(run, score, name)))
            sides.append(_by_key(recompute.values_from_items(items, source_of(score, find_asset))))
        except UserError as error:
            return {}, str(error)
    return {key: _matched(*(side.get(key, {}) for side in sides)) for key in sides[0]}, "no item states it"


def _by_key(values: Iterable[ItemValue]) -> dict[Key, dict[str, ItemValue]]:
    found: dict[Key, dict[str, ItemValue]] = {}
    for value in values:
        found.setdefault((value.metric, value.category), {})[value.item] = value
    return found


def _matched(before: Mapping[str, ItemValue], after: Mapping[str, ItemValue]) -> list[tuple[ItemValue, ItemValue]]:
    return [(value, after[item]) for item, value in before.items() if item in after]


def _are_verdicts(pairs: Iterable[tuple[ItemValue, ItemValue]]) -> bool:
    values = {value.value for pair in pairs for value in pair}
    return any(values <= kind for kind in _KINDS_OF_VERDICT)


def _strata(pairs: Iterable[tuple[ItemValue, ItemValue]]) -> Iterator[Stratum]:
    """The differences by group and prompt."""
    groups: dict[str, dict[str, list[float]]] = {}
    weights: dict[str, float] = {}
    for before, after in pairs:
        weights[before.group] = before.weight
        groups.setdefault(before.group, {}).setdefault(before.prompt, []).append(after.value - before.value)
    for name, prompts in groups.items():
        sums, counts = ([measure(found) for found in prompts.values()] for measure in (sum, len))
        yield Stratum(sums=np.array(sums), counts=np.array(counts), weight=weights[name])


def _score_folder(run: Run, score: ScoreRecord, name: str) -> Path:
    """Where the items of a score are."""
    steps = [step for step in run.record.steps if step.kind == "score" and step.is_finished]
    chosen = next(step for step in steps if name in (step.name, step.benchmark))
    return run.folder / chosen.folder / "output"


def _requests_problem(name: str, runs: tuple[Run, Run]) -> str:
    """Why items with the same id are not the same item."""
    digests = [run.scores[name].digests.get("requests") for run in runs]
    if digests[0] is not None and digests[0] == digests[1]:
        return ""
    before, after = (requests_of(run, run.scores[name].benchmark) for run in runs)
    if before is None or after is None:
        return "the prompts of one of them are not known, so the items do not pair"
    drawn = [[(row.id, row.prompt, row.label, row.seed) for row in requests] for requests in (before, after)]
    return "" if drawn[0] == drawn[1] else "drawn for other prompts or with other seeds, so the items do not pair"
