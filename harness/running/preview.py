"""What `run_plan` would do now: which steps are finished, what is missing, each step's command line. Nothing runs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from harness.contract.digest import digest_json
from harness.contract.errors import UserError
from harness.contract.shown import conceal
from harness.planning.steps import AssetInput, Document, EmptyFolder, FileInput, OutputOf, Plan, Source, Step
from harness.running.outputs import digest_of
from harness.running.setting import Setting
from harness.runtimes import Places
from harness.store.store import Entry

_EMPTY = digest_json({})


@dataclass(frozen=True, kw_only=True)
class Preview:
    """What would happen to a step now."""

    step: Step
    state: Literal["cached", "resume", "run", "waits"]
    """"waits": its key is not known before an earlier step has run."""
    key: str | None = None


def preview(plan: Plan, setting: Setting, *, force: bool = False) -> list[Preview]:
    """What `run_plan` would do, without doing anything.

    Raises:
        MissingAsset: naming every asset that is missing.
        UserError: an input file is not there, or an environment variable that a step to be run needs.
    """
    require_inputs(plan, setting)
    finished: dict[str, Entry] = {}
    previews = []
    for step in plan.steps:
        if any(need not in finished for need in step.needs):
            previews.append(Preview(step=step, state="waits"))
            continue
        key = step.key(input_digests(step, finished, setting), environment_digest_of(step, setting))
        entry = None if force else setting.store.find(step.kind, key)
        if entry:
            finished[step.name] = entry
        unfinished = step.resumes and setting.store.has_unfinished(step.kind, key)
        state: Literal["cached", "resume", "run"] = "cached" if entry else "resume" if unfinished else "run"
        previews.append(Preview(step=step, state=state, key=key))
    _require_variables(row.step for row in previews if row.state != "cached")
    return previews


def command_lines(plan: Plan, setting: Setting) -> Iterator[tuple[Step, list[str]]]:
    """The command line of each step, for `--dry-run`; an output that is not there yet is `<output of STEP>`."""
    for step in plan.steps:
        work = setting.store.root / "work" / f"{step.kind}-KEY"
        inputs = {name: path for source in step.inputs.items() for name, path in _printed_input(*source, setting, work)}
        gpus = setting.scheduler.gpus[: step.resources.gpus]
        yield step, setting.runtime.command(step, Places(inputs=inputs, work=work, gpus=gpus))


def require_inputs(plan: Plan, setting: Setting) -> None:
    """Check before the first step what would stop a later one: assets (all of them at once), locks, Dockerfiles.

    Raises:
        MissingAsset: naming every asset that is missing.
        UserError: an environment has no lock file or Dockerfile, or an image was named for none of them.
    """
    environments = dict.fromkeys(step.environment for step in plan.steps)
    names = sorted({environment.name for environment in environments if environment.image})
    for name in setting.images:
        if name not in names:
            raise UserError(
                f"--image {name}=...: no step of this run has an image of that name; there are: "
                f"{', '.join(names) or 'none'}."
            )
    for environment in environments:
        setting.runtime.environment_digest(environment)
    setting.assets.require(plan.assets)


def _require_variables(steps: Iterable[Step]) -> None:
    """A missing judge address must be reported now, not after the images are drawn."""
    missing = {
        f"{step.benchmark or step.name} needs {name} in the environment: {meaning}"
        for step in steps
        for name, meaning in step.variables.items()
        if not os.environ.get(name)
    }
    if missing:
        raise UserError("\n".join(sorted(missing)))


def plan_digest(plan: Plan, setting: Setting) -> str:
    """Digest of the plan and of everything it starts from: files, assets, environments."""
    files = {
        source.path: digest_of(source.kind, source.path, setting.memo)
        for step in plan.steps
        for source in step.inputs.values()
        if isinstance(source, FileInput)
    }
    other = {
        "assets": {name: setting.assets.find(name).digest for name, _ in plan.assets},
        "environments": {step.name: environment_digest_of(step, setting) for step in plan.steps},
    }
    return plan.digest(files, other)


def describe(plan: Plan) -> dict[str, Any]:
    """The plan as JSON."""
    steps = [step.describe() for step in plan.steps]
    row = {"name": plan.name, "generator": dict(plan.generator), "options": dict(plan.options), "steps": steps}
    return {name: conceal(value) for name, value in row.items()}


# --- keys ---


def input_digests(step: Step, finished: Mapping[str, Entry], setting: Setting) -> dict[str, str]:
    return {name: _digest_of_source(source, finished, setting) for name, source in step.inputs.items()}


def _digest_of_source(source: Source, finished: Mapping[str, Entry], setting: Setting) -> str:
    match source:
        case OutputOf(step, ""):
            return finished[step].digest
        case OutputOf(step, path):
            return setting.memo.of(finished[step].output / path)
        case FileInput(path, kind):
            return digest_of(kind, path, setting.memo)
        case AssetInput(name):
            return setting.assets.find(name).digest
        case Document(value):
            return digest_json(value)
        case EmptyFolder():
            return _EMPTY


def environment_digest_of(step: Step, setting: Setting) -> str | None:
    return setting.runtime.environment_digest(step.environment) if step.environment.keyed else None


def asset_path(name: str, asset: str, setting: Setting) -> dict[str, Path]:
    found = setting.assets.find(asset)
    return {name if found.path.is_dir() else f"{name}/{found.asset.file}": found.path}


def _printed_input(name: str, source: Source, setting: Setting, work: Path) -> Iterator[tuple[str, Path]]:
    match source:
        case OutputOf(step, path):
            yield name, Path(f"<output of {step}>") / path
        case FileInput(path):
            yield name, path
        case AssetInput(asset):
            yield from asset_path(name, asset, setting).items()
        case Document() | EmptyFolder():
            yield name, work / "given" / name
