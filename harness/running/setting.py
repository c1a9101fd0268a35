"""What executing a plan needs besides the plan: runtime, assets, store, machine; and the reporter of what happens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from harness.catalog.assets import AssetStore
from harness.catalog.benchmarks import Catalog
from harness.catalog.plugins import SCHEDULERS
from harness.catalog.project import Project, home_dir
from harness.contract.progress import ProgressLine
from harness.planning.steps import Step
from harness.runtimes import Runtime, RuntimeOptions, make_runtime
from harness.schedulers import Scheduler, SchedulerFactory
from harness.schedulers.here import Here
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
    scheduler: Scheduler = field(default_factory=Here)
    images: Mapping[str, str] = field(default_factory=dict)
    """Environment name -> the ready image that was named for it."""

    @property
    def store(self) -> Store:
        """Finished work, beside the runs."""
        return Store(self.runs_dir / ".store")


def make_setting(
    project: Project,
    catalog: Catalog,
    *,
    runtime: str = "venv",
    scheduler: str = "here",
    runs_dir: Path = Path("runs"),
    assets: Mapping[str, str | Path] | None = None,
    images: Mapping[str, str] | None = None,
    base_image: str | None = None,
) -> Setting:
    """A setting with the usual folders.

    Args:
        project: where benchmarks and Dockerfiles are.
        catalog: which assets there are.
        runtime: how steps are isolated, by name.
        scheduler: where they run, by name.
        runs_dir: where run folders and finished work go.
        assets: asset name -> a file or folder to use instead of the fetched one.
        images: image name -> a ready image to use instead of building it.
        base_image: what images are built on.
    Raises:
        UserError: there is no such runtime, scheduler or asset.
    """
    home = home_dir()
    memo = DigestMemo(home / "digests")
    make_scheduler: SchedulerFactory = SCHEDULERS.load(scheduler)
    options = RuntimeOptions(base_image=base_image, images=dict(images or {}))
    return Setting(
        runtime=make_runtime(runtime, project, home, options),
        assets=asset_store(catalog, memo, assets),
        memo=memo,
        runs_dir=Path(runs_dir).resolve(),
        scheduler=make_scheduler(),
        images=dict(images or {}),
    )


def asset_store(catalog: Catalog, memo: DigestMemo, given: Mapping[str, str | Path] | None = None) -> AssetStore:
    """The assets of this machine; given: asset name -> a file or folder to use instead of the fetched one."""
    overrides = {catalog.asset(name).name: Path(path).resolve() for name, path in (given or {}).items()}
    return AssetStore(home_dir() / "assets", catalog.assets, memo, overrides)


class Reporter(Protocol):
    """Is told what happens, as it happens; called from several threads."""

    def step_started(self, step: Step) -> None:
        """It is about to run."""

    def say(self, step: Step, text: str) -> None:
        """Something a person should know: an environment is being built, another run is being waited for."""

    def progress(self, step: Step, line: ProgressLine) -> None:
        """Its progress so far."""

    def step_ended(self, step: Step, result: StepResult) -> None:
        """It was found finished, was computed, failed, or was skipped."""


class Silent:
    """A reporter that says nothing."""

    def step_started(self, step: Step) -> None: ...

    def say(self, step: Step, text: str) -> None: ...

    def progress(self, step: Step, line: ProgressLine) -> None: ...

    def step_ended(self, step: Step, result: StepResult) -> None: ...
