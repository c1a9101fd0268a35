"""What a person is told to do about a step that failed."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from harness.planning.steps import Resources, Step
from harness.running.failures import explain
from harness.runtimes import Outcome


def ended(code: int, reason: str = "") -> Outcome:
    return Outcome(exit_code=code, seconds=1.0, reason=reason)


def told(tmp_path: Path, outcome: Outcome, advice: str = "Give it more: --memory GB.") -> str:
    log = tmp_path / "log.txt"
    log.write_text("drawing\n")
    resources = Resources(memory_gb=8, advice=advice)
    step = Step(name="sample-toy", kind="sample", argv=("x",), resources=resources, benchmark="toy")
    return explain(step, log, outcome)


@pytest.mark.parametrize(
    "outcome",
    [ended(137, "out of memory"), ended(137), ended(-signal.SIGKILL)],
)
def test_a_step_without_memory_is_told_the_setting_that_governs_it(tmp_path: Path, outcome: Outcome) -> None:
    text = told(tmp_path, outcome)
    assert "Give it more: --memory GB. Finished work is kept: run the same command again." in text
    assert "benchmark.yaml" not in text


def test_a_step_that_no_setting_governs_has_no_advice_of_that_kind(tmp_path: Path) -> None:
    assert told(tmp_path, ended(137), "").endswith("\n  Finished work is kept: run the same command again.")


def test_other_failures_say_nothing_of_memory(tmp_path: Path) -> None:
    assert "--memory" not in told(tmp_path, ended(1))
