"""Gold checks: a scorer on its small shipped case, against the known answer in `benchmark.yaml` (`check:`).

check:
  samples: check/samples          a sample set, NPZ or image folder
  assets: check/assets            one folder per asset
  options: {}                     changes to the defaults
  expected:
    gfid: {value: 2.648, rel: 1.0e-3}
    recall: {any_of: [0.8867, 0.8933], abs: 0.02}       builds differ; either answer is right
  full:                           `--full`: a public batch with published scores, against the real assets
    samples: adm-check-batch      an asset
    expected: ...
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.catalog.assets import AssetStore
from harness.catalog.benchmarks import Benchmark, Catalog
from harness.contract.errors import UserError
from harness.contract.record import ScoreRecord
from harness.planning.generators import existing_samples
from harness.planning.make import RunSpec, make_plan
from harness.planning.steps import Plan


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One metric against its known value."""

    metric: str
    got: float
    expected: float
    """The nearest of the right answers."""
    allowed: float
    """The tolerance, absolute."""

    @property
    def error(self) -> float:
        """The absolute error."""
        return abs(self.got - self.expected)

    @property
    def passed(self) -> bool:
        """Whether the error is within the tolerance."""
        return self.error <= self.allowed


def check_plan(benchmark: Benchmark, options: Mapping[str, Any] | None = None) -> tuple[Plan, dict[str, str]]:
    """The plan of a gold check, and the shipped assets that replace the real ones.

    Args:
        benchmark: whose case it is.
        options: changes to the options of the case.
    Raises:
        UserError: the benchmark ships no case, or has no such option.
    """
    case = benchmark.check
    if not case.get("samples") or not case.get("expected"):
        raise UserError(f"{benchmark.folder / 'benchmark.yaml'}: has no 'check:' with samples and expected values.")
    request = RunSpec(
        benchmarks=(benchmark.id,),
        generator=existing_samples(benchmark.folder / str(case["samples"])),
        options={benchmark.id: {**(case.get("options") or {}), **(options or {})}},
    )
    folder = benchmark.folder / str(case.get("assets", "check/assets"))
    plan = make_plan(request, Catalog([benchmark], {}))
    overrides = {name: str(folder / name) for name, _ in plan.assets if (folder / name).exists()}
    # A shipped case brings its own answers: no service of the user is called.
    steps = tuple(dataclasses.replace(step, variables={}) for step in plan.steps)
    return dataclasses.replace(plan, name=f"check-{benchmark.id}", steps=steps), overrides


def full_check_plan(benchmark: Benchmark, assets: AssetStore, options: Mapping[str, Any] | None = None) -> Plan:
    """The plan of `--full`: the public batch that `check.full` names, scored against the benchmark's own assets.

    Args:
        benchmark: whose batch it is.
        assets: where the batch is.
        options: changes to the options of the case.
    Raises:
        UserError: the benchmark names no such batch, or has no such option.
        MissingAsset: the batch is not in the asset store.
    """
    case = benchmark.check.get("full")
    if not case:
        raise UserError(f"{benchmark.id} has no public batch with published scores; leave out --full.")
    batch = assets.find(str(case["samples"]), needed_by=f"harness check {benchmark.id} --full").path
    request = RunSpec(
        benchmarks=(benchmark.id,),
        generator=existing_samples(batch),
        options={benchmark.id: {**(case.get("options") or {}), **(options or {})}},
    )
    return dataclasses.replace(make_plan(request, Catalog([benchmark], {})), name=f"check-{benchmark.id}-full")


def compare_with_expected(benchmark: Benchmark, record: ScoreRecord, *, full: bool = False) -> list[Comparison]:
    """Every expected metric against the record. A metric that is missing or not a number does not pass."""
    case = benchmark.check["full"] if full else benchmark.check
    values = {metric.name: metric.value for metric in record.metrics if metric.category is None}
    where = benchmark.folder / "benchmark.yaml"
    return [_compare(name, values.get(name), wanted, where) for name, wanted in case["expected"].items()]


def _compare(name: str, got: float | None, wanted: Mapping[str, Any], where: Path) -> Comparison:
    answers = wanted.get("any_of", [wanted.get("value")])
    if not all(isinstance(answer, int | float) for answer in answers) or not ({"rel", "abs"} & set(wanted)):
        raise UserError(f"{where}: check.expected.{name} needs 'value' or 'any_of', and 'rel' or 'abs'.")
    value = math.nan if got is None else float(got)
    nearest = min(answers, key=lambda answer: abs(answer - value))
    allowed = max(float(wanted.get("abs", 0.0)), float(wanted.get("rel", 0.0)) * abs(nearest))
    return Comparison(metric=name, got=value, expected=nearest, allowed=allowed)
