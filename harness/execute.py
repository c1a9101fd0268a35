"""Runs a plan: each step from the store when it is there, computed otherwise, and everything written down.

`run_plan` is the one way in. The order of things around a single step is in `_Run._compute`; what keeps it safe:

- a key is only made of digests of finished, checked inputs;
- the store takes an output in by one rename, after it was checked, while the lease is still ours;
- a work folder outlives a kill, and what a killed harness left running in it is ended before it is used again.
"""

from __future__ import annotations

import dataclasses
import os
import platform
import re
import shlex
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal, Protocol

import harness
from harness.assets import AssetStore
from harness.contract.digest import digest_json
from harness.contract.errors import EXIT_PARTLY_SCORED, EnvironmentFailure, UserError
from harness.contract.files import read_json, write_json
from harness.contract.progress import ProgressLine, parse_line
from harness.digests import DigestMemo
from harness.folders import link_relative
from harness.outputs import check_output, digest_of
from harness.plan import AssetInput, Document, EmptyFolder, FileInput, OutputOf, Plan, Source, Step
from harness.record import RECORD_FILE, RUN_FILE, RunRecord, StepResult
from harness.runtimes import Outcome, Places, Runtime
from harness.schedulers.here import Machine, Shares, run_all
from harness.store import Entry, Store, Work

STOPPED_BY_SIGNAL = 75
"""Exit code of a program that saved its state when it was asked to stop; the same command goes on."""
_EMPTY = digest_json({})
_TAIL_LINES = 12


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


# --- looking ahead ---------------------------------------------------------------------------------------------------


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
        key = step.key(_input_digests(step, finished, setting), _environment_digest(step, setting))
        entry = None if force else setting.store.find(step.kind, key)
        if entry:
            finished[step.name] = entry
        unfinished = step.resumes and setting.store.has_unfinished(step.kind, key)
        state: Literal["cached", "resume", "run"] = "cached" if entry else "resume" if unfinished else "run"
        previews.append(Preview(step=step, state=state, key=key))
    _require_variables(row.step for row in previews if row.state != "cached")
    return previews


def command_lines(plan: Plan, setting: Setting) -> Iterator[tuple[Step, list[str]]]:
    """The command line of each step, for `--dry-run`; the output of a step that has not run is a word in brackets."""
    for step in plan.steps:
        work = setting.store.root / "work" / f"{step.kind}-KEY"
        inputs = {name: path for source in step.inputs.items() for name, path in _printed_input(*source, setting, work)}
        gpus = setting.machine.gpus[: step.resources.gpus]
        yield step, setting.runtime.command(step, Places(inputs=inputs, work=work, gpus=gpus))


def require_inputs(plan: Plan, setting: Setting) -> None:
    """Find out before the first step what would stop a later one: assets (all of them at once), locks, Dockerfiles.

    Raises:
        MissingAsset: naming every asset that is missing.
        UserError: an environment has no lock file or Dockerfile.
    """
    for environment in dict.fromkeys(step.environment for step in plan.steps):
        setting.runtime.environment_digest(environment)
    problems = setting.assets.missing(plan.assets)
    if problems:
        raise type(problems[0])("\n".join(str(problem) for problem in problems))


def _require_variables(steps: Iterable[Step]) -> None:
    """A judge's address that was forgotten should be missed now, not after the images are drawn."""
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
        "environments": {step.name: _environment_digest(step, setting) for step in plan.steps},
    }
    return plan.digest(files, other)


# --- running ---------------------------------------------------------------------------------------------------------


def run_plan(
    plan: Plan,
    setting: Setting,
    *,
    force: bool = False,
    run_id: str | None = None,
    reporter: Reporter | None = None,
    command: Sequence[str] = (),
) -> tuple[RunRecord, Path]:
    """Run a plan and return its record and its run folder. The same plan again continues the same folder.

    Args:
        plan: what to do; `make_plan`, or steps of one's own.
        setting: with what.
        force: compute finished steps again; unfinished work is continued all the same.
        run_id: name of the run folder; by default the plan's name and eight digits of its digest.
        reporter: who is told.
        command: the command line, for the record.
    Raises:
        MissingAsset: before anything runs.
        UserError: an input or an environment variable is not there. A step that fails is no exception: the record
            says so.
    """
    preview(plan, setting, force=force)
    digest = plan_digest(plan, setting)
    run_dir = setting.runs_dir / check_run_id(run_id or f"{plan.name}-{digest[:8]}")
    record = RunRecord(
        run=run_dir.name,
        plan_digest=digest,
        generator=plan.generator,
        options=plan.options,
        runtime=setting.runtime.name,
        command=tuple(command),
        forced=force,
        started=_now(),
        machine=_describe_machine(setting.machine),
        harness={"version": harness.__version__, "python": platform.python_version()},
        steps=tuple(
            StepResult(
                name=step.name, kind=step.kind, benchmark=step.benchmark, title=step.title, folder=_folder(i, step)
            )
            for i, step in enumerate(plan.steps, start=1)
        ),
    )
    _keep_other_record(run_dir, digest)
    write_json(run_dir / RUN_FILE, {"command": list(command), "plan_digest": digest, "plan": describe(plan)})
    run = _Run(plan=plan, setting=setting, run_dir=run_dir, record=record, force=force, reporter=reporter or Silent())
    return run.to_the_end(), run_dir


def describe(plan: Plan) -> dict[str, Any]:
    """The plan as JSON."""
    steps = [step.describe() for step in plan.steps]
    return {"name": plan.name, "generator": dict(plan.generator), "options": dict(plan.options), "steps": steps}


def check_run_id(name: str) -> str:
    """A run folder's name as it was given, unless it would not be a visible folder of its own among the runs."""
    if Path(name).name != name or name.startswith("."):
        raise UserError(f"--name {name}: a run is a folder under --runs; give a name without '/' and leading dots.")
    return name


def exit_code(record: RunRecord) -> int:
    """Exit code of a command that ran a plan: the first failed step's; 5 when partly scored; 130 when interrupted."""
    if record.status == "interrupted":
        return 130
    failed = [step.exit_code for step in record.steps if step.status == "failed"]
    if failed:
        return failed[0] if failed[0] in {2, 3, 4, 6} else 1
    return EXIT_PARTLY_SCORED if record.status == "partly" else 0


class _Run:
    """One execution of a plan."""

    def __init__(
        self, *, plan: Plan, setting: Setting, run_dir: Path, record: RunRecord, force: bool, reporter: Reporter
    ) -> None:
        self.plan = plan
        self.setting = setting
        self.store = setting.store
        self.run_dir = run_dir
        self.record = record
        self.force = force
        self.reporter = reporter
        self.shares = Shares(setting.machine)
        self.finished: dict[str, Entry] = {}
        self._stop = threading.Event()
        self._writing = threading.Lock()
        self._under_way: set[str] = set()
        """Steps that have reported progress."""
        self._waited_s: dict[str, float] = {}
        """Seconds that a step waited for its share of the machine: not counted as its own."""

    def to_the_end(self) -> RunRecord:
        started = time.monotonic()
        self.record.write(self.run_dir)
        with self._signals_stop():
            run_all(self.plan.steps, self._do, self._under_way)
        self._leave_out_the_rest()
        steps = self.record.steps
        if all(step.is_finished for step in steps):
            status = "partly" if any(step.is_partly_scored for step in steps) else "finished"
        else:
            status = "interrupted" if self._stop.is_set() else "failed"
        self._update(status=status, finished=_now(), seconds=round(time.monotonic() - started, 3))
        return self.record

    # --- one step ----------------------------------------------------------------------------------------------------

    def _do(self, step: Step) -> bool:
        """Do one step and record it; false when there is no output."""
        started = time.monotonic()
        if self._stop.is_set():
            return False
        try:
            result = self._find_or_compute(step)
        except _Interrupted:
            result = self._row(step)
        except UserError as error:
            if self._stop.is_set():  # a build or a program that was cut off is no failure of its own
                return False
            result = self._result(step, status="failed", exit_code=error.exit_code, error=str(error))
        seconds = time.monotonic() - started - self._waited_s.get(step.name, 0.0)
        result = dataclasses.replace(result, seconds=round(seconds, 3))
        self._conclude(step, result)
        return result.is_finished

    def _find_or_compute(self, step: Step) -> StepResult:
        digests = _input_digests(step, self.finished, self.setting)
        key = step.key(digests, _environment_digest(step, self.setting))
        forced = self.force and self.store.find(step.kind, key) is not None
        entry = None if forced else self.store.find(step.kind, key)
        if entry:
            return self._found(step, entry)
        waiting = lambda holder: self.reporter.say(step, f"waiting for {holder}, which is at it")  # noqa: E731
        with self.store.working(step.kind, key, on_wait=waiting, give_up=self._stop.is_set) as work:
            entry = None if forced else self.store.find(step.kind, key)
            return self._found(step, entry) if entry else self._compute(step, key, digests, work, forced=forced)

    def _compute(self, step: Step, key: str, digests: dict[str, str], work: Work, *, forced: bool) -> StepResult:
        link_relative(self.run_dir / self._row(step).folder / "log.txt", work.log)
        work.output.mkdir(parents=True, exist_ok=True)
        outcome = _earlier_outcome(work)
        resumed = outcome is not None
        gpus: tuple[str, ...] = ()
        if outcome is None:
            resumed = _ready_output(step, work)
            self.setting.runtime.prepare(step.environment, lambda text: self.reporter.say(step, text))
            asked = time.monotonic()
            with self.shares.take(step.resources, give_up=self._stop.is_set) as gpus:
                self._waited_s[step.name] = time.monotonic() - asked
                self.reporter.step_started(step)
                outcome = self._run_command(step, work, gpus)
            work.lease.check()
            self._refuse_failure(step, work, outcome)
            write_json(work.path / "outcome.json", dataclasses.asdict(outcome))
        self._check(step, work, digests)
        meta = {
            "step": step.describe(),
            "inputs": digests,
            "environment": self.setting.runtime.describe(step.environment),
            "exit_code": outcome.exit_code,
            "computed_s": round(outcome.seconds, 3),
            "gpus": list(gpus),
            "created": _now(),
            "forced": forced,
        }
        _clean(work)
        digest = digest_of(step.kind, work.output, self.setting.memo)
        entry = self.store.commit(work, step.kind, key, digest=digest, meta=meta)
        return self._found(step, entry, status="resumed" if resumed else "run", forced=forced)

    def _run_command(self, step: Step, work: Work, gpus: tuple[str, ...]) -> Outcome:
        places = Places(inputs=self._inputs(step, work), work=work.path, gpus=gpus)
        runtime = self.setting.runtime
        runtime.clear(places)
        places.scratch.mkdir(parents=True, exist_ok=True)
        with work.log.open("a", encoding="utf-8", buffering=1) as log:
            log.write(f"# {_now()}\n$ {shlex.join(runtime.command(step, places))}\n")

            def on_line(line: str) -> None:
                progress = parse_line(line)
                if progress:
                    self._under_way.add(step.name)
                    self.reporter.progress(step, progress)
                elif not log.closed:
                    log.write(line + "\n")

            return runtime.run(step, places, on_line, lambda: self._stop.is_set() or work.lease.lost.is_set())

    def _refuse_failure(self, step: Step, work: Work, outcome: Outcome) -> None:
        partly = step.kind == "score" and outcome.exit_code == EXIT_PARTLY_SCORED
        if not outcome.reason and (outcome.exit_code == 0 or partly):
            return
        if outcome.reason == "cancelled" or outcome.exit_code == STOPPED_BY_SIGNAL:
            self._stop.set()
            raise _Interrupted("stopped; run the same command to go on")
        raise _StepFailed(_explain(step, work.log, outcome), _failure_code(outcome))

    def _check(self, step: Step, work: Work, digests: dict[str, str]) -> None:
        """Check the output; what fails the check is thrown away, or it would be found again next time."""
        try:
            check_output(step, work.output, digests)
        except UserError:
            self.store.abandon(work)
            raise

    def _inputs(self, step: Step, work: Work) -> dict[str, Path]:
        """Name below `{in}` -> the file or folder on this machine."""
        given = work.path / "given"
        shutil.rmtree(given, ignore_errors=True)
        inputs: dict[str, Path] = {}
        for name, source in step.inputs.items():
            match source:
                case OutputOf(earlier, path):
                    inputs[name] = self.finished[earlier].output / path
                case FileInput(path):
                    inputs[name] = path
                case AssetInput(asset):
                    inputs |= _asset_path(name, asset, self.setting)
                case Document(value):
                    write_json(given / name, value)
                    inputs[name] = given / name
                case EmptyFolder():
                    (given / name).mkdir(parents=True)
                    inputs[name] = given / name
        return inputs

    # --- the record --------------------------------------------------------------------------------------------------

    def _found(self, step: Step, entry: Entry, **changes: Any) -> StepResult:
        self.finished[step.name] = entry
        folder = self.run_dir / self._row(step).folder
        link_relative(folder / "output", entry.output)
        if entry.log.exists():
            link_relative(folder / "log.txt", entry.log)
        meta = entry.meta
        row = {
            "status": "cached",
            "key": entry.key,
            "digest": entry.digest,
            "exit_code": meta["exit_code"],
            "computed_s": meta["computed_s"],
            "inputs": meta["inputs"],
            "environment": meta["environment"],
            "gpus": tuple(meta["gpus"]),
            "forced": meta["forced"],
        }
        return self._result(step, **{**row, **changes})

    def _result(self, step: Step, **changes: Any) -> StepResult:
        return dataclasses.replace(self._row(step), **changes)

    def _row(self, step: Step) -> StepResult:
        return self.record.step(step.name)

    def _conclude(self, step: Step, result: StepResult) -> None:
        write_json(self.run_dir / result.folder / "step.json", dataclasses.asdict(result))
        with self._writing:
            steps = tuple(result if row.name == step.name else row for row in self.record.steps)
            self.record = dataclasses.replace(self.record, steps=steps)
            self.record.write(self.run_dir)
        self.reporter.step_ended(step, result)

    def _leave_out_the_rest(self) -> None:
        for step in self.plan.steps:
            if self._row(step).status == "waiting" and not self._stop.is_set():
                missing = [name for name in step.waits_for if not self.record.step(name).is_finished]
                error = f"waits for {missing[0]}, which failed"
                self._conclude(step, self._result(step, status="skipped", error=error))

    def _update(self, **changes: Any) -> None:
        with self._writing:
            self.record = dataclasses.replace(self.record, **changes)
            self.record.write(self.run_dir)

    @contextmanager
    def _signals_stop(self) -> Iterator[None]:
        """Ctrl-C, a batch system's SIGTERM and a closed terminal let the steps save and end."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def stop(number: int, frame: Any) -> None:
            self._stop.set()
            # Not from the handler itself: the main thread may hold the very lock that waking needs.
            threading.Thread(target=self.shares.wake, daemon=True).start()

        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = {number: signal.signal(number, stop) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class _StepFailed(UserError):
    """The command of a step failed; carries its exit code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.exit_code = code


class _Interrupted(UserError):
    """The step was asked to stop."""

    exit_code = STOPPED_BY_SIGNAL


# --- helpers ---------------------------------------------------------------------------------------------------------


def _input_digests(step: Step, finished: Mapping[str, Entry], setting: Setting) -> dict[str, str]:
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


def _environment_digest(step: Step, setting: Setting) -> str | None:
    return setting.runtime.environment_digest(step.environment) if step.environment.keyed else None


def _asset_path(name: str, asset: str, setting: Setting) -> dict[str, Path]:
    found = setting.assets.find(asset)
    return {name if found.path.is_dir() else f"{name}/{found.asset.file}": found.path}


def _printed_input(name: str, source: Source, setting: Setting, work: Path) -> Iterator[tuple[str, Path]]:
    match source:
        case OutputOf(step, path):
            yield name, Path(f"<output of {step}>") / path
        case FileInput(path):
            yield name, path
        case AssetInput(asset):
            yield from _asset_path(name, asset, setting).items()
        case Document() | EmptyFolder():
            yield name, work / "given" / name


def _earlier_outcome(work: Work) -> Outcome | None:
    """How an earlier attempt ended, when its command had ended well and only the taking in was cut off."""
    try:
        return Outcome(**read_json(work.path / "outcome.json"))
    except (UserError, TypeError):
        return None


def _ready_output(step: Step, work: Work) -> bool:
    """Prepare the output folder; true when the step continues from what is in it."""
    leftover = any(work.output.iterdir())
    if leftover and not step.resumes:
        shutil.rmtree(work.output)
        work.output.mkdir()
    return leftover and step.resumes


def _clean(work: Work) -> None:
    """Remove what is not part of the result."""
    for name in ("in", "given", "scratch"):
        shutil.rmtree(work.path / name, ignore_errors=True)


def _explain(step: Step, log: Path, outcome: Outcome) -> str:
    """What went wrong, for a person: the end of the log, where it is, and what to do."""
    said = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    start = max((i for i, line in enumerate(said) if line.startswith("$ ")), default=-1)
    tail = "\n".join(f"    {line}" for line in said[start + 1 :][-_TAIL_LINES:]) or "    (it printed nothing)"
    return (
        f"{step.name} {_ending(step, outcome)}. The end of its log:\n{tail}\n  Whole log: {log}\n"
        f"  {_advice(step, outcome)}"
    )


def _ending(step: Step, outcome: Outcome) -> str:
    if outcome.reason == "timeout":
        limit = step.resources.timeout_s
        return f"took longer than {limit:.0f} s" if limit else "took too long"
    if outcome.reason == "out of memory":
        return f"needed more than its {step.resources.memory_gb:g} GB of memory"
    code = outcome.exit_code
    if code < 0:
        often = ", often for lack of memory" if code == -signal.SIGKILL else ""
        return f"ended with exit code {code} (killed by {signal.Signals(-code).name}{often})"
    meaning = _MEANINGS.get(code)
    return f"ended with exit code {code} ({meaning})" if meaning else f"ended with exit code {code}"


_MEANINGS = {
    2: "usage",
    3: "the samples are not what the benchmark needs",
    4: "an asset is missing or wrong",
    6: "the environment failed",
}


def _advice(step: Step, outcome: Outcome) -> str:
    again = "What was finished is kept: run the same command again."
    if outcome.reason == "timeout" and step.benchmark:
        return f"Raise scorer.timeout_s in benchmarks/{step.benchmark}/benchmark.yaml. {again}"
    if outcome.reason == "out of memory" and step.benchmark:
        return f"Raise scorer.memory_gb in benchmarks/{step.benchmark}/benchmark.yaml. {again}"
    return again


def _failure_code(outcome: Outcome) -> int:
    if outcome.reason or outcome.exit_code in {-signal.SIGKILL, 137}:
        return EnvironmentFailure.exit_code
    return outcome.exit_code if outcome.exit_code > 0 else 1


def _folder(number: int, step: Step) -> str:
    return f"steps/{number:02d}-{step.name}"


def _keep_other_record(run_dir: Path, digest: str) -> None:
    """A run folder named by the user may have served another plan: its record is put aside, not written over."""
    try:
        record = RunRecord.read(run_dir)
    except UserError:
        return
    if record.plan_digest != digest:
        stamp = re.sub(r"\W", "", record.started)[:15]
        history = run_dir / "history"
        history.mkdir(exist_ok=True)
        (run_dir / RECORD_FILE).replace(history / f"record-{stamp}-{record.plan_digest[:8]}.json")
        shutil.rmtree(run_dir / "steps", ignore_errors=True)


def _describe_machine(machine: Machine) -> dict[str, Any]:
    return {
        "host": platform.node(),
        "platform": platform.platform(),
        "cpus": machine.cpus,
        "memory_gb": round(machine.memory_gb, 1),
        "gpus": len(machine.gpus),
        "user": os.environ.get("USER", ""),
        "executable": sys.executable,
    }


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
