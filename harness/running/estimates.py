"""What a step will probably cost, from what the same step took in earlier runs on this machine."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.contract.errors import UserError
from harness.planning.steps import Plan, Step
from harness.running.setting import Setting
from harness.store.run_record import RunRecord, StepResult, find_runs


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What earlier runs say; None where there are none, or their output is gone."""

    seconds: float | None = None
    """The median."""
    disk_bytes: int | None = None
    """Of the newest output."""


def estimates(plan: Plan, setting: Setting) -> dict[str, Estimate]:
    """Step -> estimate, from finished steps of this machine's runs with as many images and the same generator.

    A score or a feature stage takes as long for any generator; drawing depends on the model.
    """
    here = setting.scheduler.describe()
    problems: list[UserError] = []  # a damaged record of another run is no reason not to plan this one
    runs = [run for run in find_runs(setting.runs_dir, problems.append) if _is_alike(run, plan, here)]
    return {step.name: _estimate(step, plan, runs, setting.runs_dir) for step in plan.steps}


def _is_alike(run: RunRecord, plan: Plan, here: Mapping[str, Any]) -> bool:
    same_machine = all(run.machine.get(name) == here[name] for name in ("host", "cpus", "gpus"))
    return same_machine and run.options.get("limit") == plan.options.get("limit")


def _estimate(step: Step, plan: Plan, runs: Sequence[RunRecord], runs_dir: Path) -> Estimate:
    found = [
        (result, runs_dir / run.run / result.folder / "output")
        for run in runs
        for result in run.steps
        if result.name == step.name and result.is_finished and _costs_as_much(result, step, run, plan)
    ]
    seconds = [result.computed_s for result, _ in found if result.computed_s is not None]
    newest = next((output for _, output in reversed(found) if output.is_dir()), None)
    return Estimate(
        seconds=statistics.median(seconds) if seconds else None,
        disk_bytes=None if newest is None else _bytes_below(newest),
    )


def _costs_as_much(result: StepResult, step: Step, run: RunRecord, plan: Plan) -> bool:
    if result.kind in ("sample", "pairs"):
        return dict(run.generator) == dict(plan.generator) and len(result.gpus) <= step.resources.gpus
    return True


def _bytes_below(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
