"""How a failed step is reported: what happened, the end of its log, what to do, and the exit status."""

from __future__ import annotations

import signal
from pathlib import Path

from harness.contract.errors import (
    EXIT_DEFECT,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_PARTLY_SCORED,
    EXIT_STATUSES,
    EXIT_STOPPED,
    EXPLAINED_STATUSES,
    EnvironmentFailure,
    UserError,
)
from harness.contract.samples import MANIFEST_FILE
from harness.planning.steps import Step
from harness.runtimes import Outcome
from harness.store.run_record import RunRecord

_TAIL_LINES = 12
_KILLED = frozenset({-signal.SIGKILL, 128 + signal.SIGKILL})
"""A process of this machine, and one in a container, whose engine does not always see that memory ran out. A machine
without free memory does it, too."""


def exit_code(record: RunRecord) -> int:
    """Exit code of a command that ran a plan: the first failed step's, where that is a documented one."""
    if record.status == "interrupted":
        return EXIT_INTERRUPTED
    failed = [step.exit_code for step in record.steps if step.status == "failed"]
    if failed:
        return failed[0] if failed[0] in EXPLAINED_STATUSES else EXIT_DEFECT
    return EXIT_PARTLY_SCORED if record.status == "partly" else EXIT_OK


def failures(record: RunRecord) -> str:
    """What went wrong in a run, one paragraph per failed step; empty when every step has finished."""
    if record.status == "interrupted":
        return f"The run {record.run} was interrupted; the same call continues it."
    return "\n".join(step.error or f"{step.name} failed." for step in record.steps if step.status == "failed")


class RunFailed(UserError):
    """A run did not finish: the errors of its failed steps; carries the run's exit code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.exit_code = code


class StepFailed(RunFailed):
    """The command of a step failed; carries the command's exit code."""


class Interrupted(UserError):
    """The step was asked to stop."""

    exit_code = EXIT_STOPPED


def explain(step: Step, log: Path, outcome: Outcome) -> str:
    """What went wrong, for a person: the end of the log, where it is, and what to do."""
    said = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    start = max((i for i, line in enumerate(said) if line.startswith("$ ")), default=-1)
    tail = "\n".join(f"    {line}" for line in said[start + 1 :][-_TAIL_LINES:]) or "    (it printed nothing)"
    return (
        f"{step.name} {_ending(step, outcome)}. The end of its log:\n{tail}\n  Whole log: {log}\n"
        f"  {_advice(step, outcome)}"
    )


def advice_on_refused(step: Step, kept: Path, requests: Path | None) -> str:
    """Where the output of a step that was refused is kept, and how it can still be used.

    Args:
        step: whose command had succeeded.
        kept: the output.
        requests: what the images in it were drawn for, if they are images.
    """
    kept_in = f"Nothing is deleted: what {step.name} wrote is kept in {kept}"
    if step.kind != "sample":
        return f"{kept_in}."
    if (kept / MANIFEST_FILE).exists():
        return f"{kept_in}; put it right there, and the same command goes on with it."
    archives = [path for path in kept.glob("*.npz") if path.is_file()]
    images = archives[0] if len(archives) == 1 else kept
    drawn_for = f" --requests {requests}" if requests else ""
    return (
        f"{kept_in}; images in it can be scored: python -m harness.contract adopt {images} OUT{drawn_for} && "
        f"harness score {step.benchmark or 'BENCHMARK'} --samples OUT"
    )


def _ending(step: Step, outcome: Outcome) -> str:
    if outcome.reason == "timeout":
        limit = step.resources.timeout_s
        return f"took longer than {limit:.0f} s" if limit else "took too long"
    if outcome.reason == "out of memory":
        return f"needed more than its {step.resources.memory_gb:g} GB of memory"
    code = outcome.exit_code
    if code in _KILLED:
        return f"ended with exit code {code} (killed by SIGKILL, often because memory ran out)"
    if code < 0:
        return f"ended with exit code {code} (killed by {signal.Signals(-code).name})"
    meaning = f" ({EXIT_STATUSES[code]})" if code in EXPLAINED_STATUSES else ""
    return f"ended with exit code {code}{meaning}"


def _advice(step: Step, outcome: Outcome) -> str:
    again = "Finished work is kept: run the same command again."
    if outcome.reason == "timeout" and step.benchmark:
        return f"Raise scorer.timeout_s in benchmarks/{step.benchmark}/benchmark.yaml. {again}"
    if outcome.reason == "out of memory" or outcome.exit_code in _KILLED:
        return f"{step.resources.advice} {again}".strip()
    return again


def failure_code(outcome: Outcome) -> int:
    if outcome.reason or outcome.exit_code in _KILLED:
        return EnvironmentFailure.exit_code
    return outcome.exit_code if outcome.exit_code > 0 else EXIT_DEFECT
