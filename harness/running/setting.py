"""What executing a plan needs besides the plan: runtime, assets, store, machine; and who is told what happens."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from harness.catalog.assets import AssetStore
from harness.contract.progress import ProgressLine
from harness.planning.steps import Step
from harness.runtimes import Runtime
from harness.schedulers.here import Machine
from harness.store.digests import DigestMemo
from harness.store.run_record import StepResult
from harness.store.store import Store


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Everything that executing a plan needs besides the plan."""

    runtime: Runtime
    assets: AssetStore
    memo: DigestMemo
    runs_dir: Path
    machine: Machine = field(default_factory=Machine.detect)

    @property
    def store(self) -> Store:
        """Finished work, beside the runs."""
        return Store(self.runs_dir / ".store")


class Reporter(Protocol):
    """Who is told what happens, as it happens; called from several threads."""

    def step_started(self, step: Step) -> None:
        """It is about to run."""

    def say(self, step: Step, text: str) -> None:
        """Something a person should know: an environment is being built, another run is being waited for."""

    def progress(self, step: Step, line: ProgressLine) -> None:
        """It has come this far."""

    def step_ended(self, step: Step, result: StepResult) -> None:
        """It was found finished, was computed, failed, or was left out."""


class Silent:
    """A reporter that says nothing."""

    def step_started(self, step: Step) -> None: ...

    def say(self, step: Step, text: str) -> None: ...

    def progress(self, step: Step, line: ProgressLine) -> None: ...

    def step_ended(self, step: Step, result: StepResult) -> None: ...
