"""Runs a plan: takes each step from the store or computes it, and records everything.

`run_plan` is the entry point. `_Run._compute` has the order of events for one step; what keeps it safe:

- a key is only made of digests of finished, checked inputs;
- an output enters the store by one rename, after it was checked, while the lease is still ours;
- a work folder survives a kill, and what a killed harness left running in it is ended before it is used again.
"""

from __future__ import annotations

import dataclasses
import os
import platform
import re
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

from harness.contract.errors import EXIT_OK, EXIT_PARTLY_SCORED, EXIT_STOPPED, EnvironmentFailure, UserError
from harness.contract.files import explain_disk_errors, open_log, read_json, write_json
from harness.contract.progress import parse_line
from harness.contract.shown import conceal, printable, shell_line, without_secrets
from harness.planning.steps import AssetInput, Document, EmptyFolder, FileInput, OutputOf, Plan, Step
from harness.running.failures import Interrupted, StepFailed, advice_on_refused, explain, failure_code
from harness.running.outputs import check_output, digest_of
from harness.running.preview import asset_path, describe, environment_digest_of, input_digests, plan_digest, preview
from harness.running.setting import Reporter, Setting, Silent
from harness.runtimes import Outcome, Places
from harness.store.folders import link_relative
from harness.store.run_record import RECORD_FILE, RUN_FILE, RunRecord, StepResult
from harness.store.store import Entry, Work

# --- running ---------------------------------------------------------------------------------------------------------


T = TypeVar("T")

_POLL_S = 0.2
_LONGEST_NAME = 200
"""Bytes in the name of a run folder: some file systems have only 255 for what is made of it."""

DISTRIBUTION = "gear-harness"
"""The installed package that this is part of; every record has its version."""


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
        plan: what to do, from `make_plan` or put together by hand.
        setting: runtime, assets, store and machine.
        force: compute finished steps again; unfinished work is still continued.
        run_id: name of the run folder; by default the plan's name and eight digits of its digest.
        reporter: is told what happens.
        command: the command line, for the record.
    Raises:
        MissingAsset: before anything runs.
        UserError: an input or an environment variable is not there. A failing step raises nothing: the record
            has it.
    """
    preview(plan, setting, force=force)
    digest = plan_digest(plan, setting)
    run_dir = setting.runs_dir / check_run_id(run_id or _default_run_id(plan, digest))
    record = RunRecord(
        run=run_dir.name,
        plan_digest=digest,
        generator=conceal(plan.generator),
        options=conceal(plan.options),
        runtime=setting.runtime.name,
        command=tuple(conceal(command)),
        forced=force,
        started=_now(),
        machine=setting.scheduler.describe(),
        harness={"version": metadata.version(DISTRIBUTION), "python": platform.python_version()},
        steps=tuple(
            StepResult(
                name=step.name, kind=step.kind, benchmark=step.benchmark, title=step.title, folder=_folder(i, step)
            )
            for i, step in enumerate(plan.steps, start=1)
        ),
    )
    with explain_disk_errors(run_dir):
        _keep_other_record(run_dir, digest)
    write_json(run_dir / RUN_FILE, {"command": conceal(command), "plan_digest": digest, "plan": describe(plan)})
    run = _Run(plan=plan, setting=setting, run_dir=run_dir, record=record, force=force, reporter=reporter or Silent())
    return run.to_the_end(), run_dir


def check_run_id(name: str) -> str:
    """A run folder's name as it was given, unless it would not be a visible folder of its own among the runs."""
    if Path(name).name != name or name.startswith("."):
        raise UserError(f"--name {name}: a run is a folder under --runs; give a name without '/' and leading dots.")
    if not name.isprintable() or len(os.fsencode(name)) > _LONGEST_NAME:
        raise UserError(
            f"--name {printable(name[:20])}...: is longer than {_LONGEST_NAME} bytes, or has characters that cannot be "
            "printed; give a shorter and plainer name."
        )
    return name


def _default_run_id(plan: Plan, digest: str) -> str:
    return f"{plan.name.encode()[: _LONGEST_NAME // 2].decode(errors='ignore')}-{digest[:8]}"


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
        self.scheduler = setting.scheduler
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
            self.scheduler.run(self.plan.steps, self._do, self._under_way)
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
            with explain_disk_errors(self.store.root):
                result = self._find_or_compute(step)
        except Interrupted:
            result = self._row(step)
        except UserError as error:
            if self._stop.is_set():  # an interrupted build or program is not a failure
                return False
            problem = printable(without_secrets(str(error)))
            result = self._result(step, status="failed", exit_code=error.exit_code, error=problem)
        seconds = time.monotonic() - started - self._waited_s.get(step.name, 0.0)
        result = dataclasses.replace(result, seconds=round(seconds, 3))
        self._conclude(step, result)
        return result.is_finished

    def _find_or_compute(self, step: Step) -> StepResult:
        digests = self._unless_stopped(lambda: input_digests(step, self.finished, self.setting))
        key = step.key(digests, environment_digest_of(step, self.setting))
        forced = self.force and self.store.find(step.kind, key) is not None
        entry = None if forced else self.store.find(step.kind, key)
        if entry:
            return self._found(step, entry)
        waiting = lambda holder: self.reporter.say(step, f"waiting for {holder}, which is already working on this step")  # noqa: E731
        with self.store.working(step.kind, key, on_wait=waiting, give_up=self._stop.is_set) as work:
            entry = None if forced else self.store.find(step.kind, key)
            if entry is None and not forced:
                self._put_changed_aside(step, key)
            return self._found(step, entry) if entry else self._compute(step, key, digests, work, forced=forced)

    def _put_changed_aside(self, step: Step, key: str) -> None:
        kept = self.store.put_changed_aside(step.kind, key)
        if kept:
            changed = "its finished output was changed since it was computed, so it is computed again"
            self.reporter.say(step, f"{changed}; the changed one is kept in {kept}")

    def _refuse_changed_inputs(self, step: Step) -> None:
        """What an earlier step of this run gave may have been changed since."""
        for need in step.needs:
            entry = self.finished[need]
            if self.store.find(self.plan.step(need).kind, entry.key) is None:
                raise UserError(
                    f"{entry.output}: was changed while this run used it; run the same command again, which computes "
                    "it again."
                )

    def _compute(self, step: Step, key: str, digests: dict[str, str], work: Work, *, forced: bool) -> StepResult:
        link_relative(self.run_dir / self._row(step).folder / "log.txt", work.log)
        repaired = step.kind == "sample" and self._take_up_repaired(step, work, digests)
        if work.output.is_symlink():
            work.output.unlink()
        work.output.mkdir(parents=True, exist_ok=True)
        outcome = _earlier_outcome(work)
        resumed = outcome is not None
        gpus: tuple[str, ...] = ()
        if outcome is None:
            resumed = _ready_output(step, work)
            say = lambda text: self.reporter.say(step, text)  # noqa: E731
            self._unless_stopped(lambda: self.setting.runtime.prepare(step.environment, say))
            asked = time.monotonic()
            with self.scheduler.take(step.resources, give_up=self._stop.is_set) as gpus:
                self._waited_s[step.name] = time.monotonic() - asked
                self._unless_stopped(lambda: self._refuse_changed_inputs(step))
                self.reporter.step_started(step)
                outcome = self._run_command(step, work, gpus)
            work.lease.check()
            self._refuse_failure(step, work, outcome)
            write_json(work.path / "outcome.json", dataclasses.asdict(outcome))
        if not repaired:
            self._check(step, work, digests)
        meta = {
            "step": conceal(step.describe()),
            "inputs": digests,
            "environment": self.setting.runtime.describe(step.environment),
            "exit_code": outcome.exit_code,
            "computed_s": round(outcome.seconds, 3),
            "gpus": list(gpus),
            "created": _now(),
            "forced": forced,
        }
        _clean(work)
        digest = self._unless_stopped(lambda: digest_of(step.kind, work.output, self.setting.memo))
        entry = self.store.commit(work, step.kind, key, digest=digest, meta=meta)
        return self._found(step, entry, status="resumed" if resumed else "run", forced=forced)

    def _run_command(self, step: Step, work: Work, gpus: tuple[str, ...]) -> Outcome:
        places = Places(inputs=self._inputs(step, work), work=work.path, gpus=gpus)
        runtime = self.setting.runtime
        runtime.clear(places)
        places.scratch.mkdir(parents=True, exist_ok=True)
        with open_log(work.log, "a") as log:
            log.write(f"# {_now()}\n$ {shell_line(runtime.command(step, places))}\n")

            def on_line(line: str) -> None:
                line = printable(without_secrets(line))
                progress = parse_line(line)
                if progress:
                    self._under_way.add(step.name)
                    self.reporter.progress(step, progress)
                elif not log.closed:
                    log.write(line + "\n")

            said = lambda line: on_line(places.with_given_paths(line))  # noqa: E731
            return runtime.run(step, places, said, lambda: self._stop.is_set() or work.lease.lost.is_set())

    def _refuse_failure(self, step: Step, work: Work, outcome: Outcome) -> None:
        partly = step.kind == "score" and outcome.exit_code == EXIT_PARTLY_SCORED
        if not outcome.reason and (outcome.exit_code == EXIT_OK or partly):
            return
        if outcome.reason == "cancelled" or outcome.exit_code == EXIT_STOPPED:
            self._stop.set()
            raise Interrupted("stopped; run the same command to continue")
        raise StepFailed(explain(step, work.log, outcome), failure_code(outcome))

    def _check(self, step: Step, work: Work, digests: dict[str, str]) -> None:
        """Check the output; one that is refused is kept aside, or the next run would find it again."""
        try:
            self._unless_stopped(lambda: check_output(step, work.output, digests))
        except (EnvironmentFailure, Interrupted):  # not the output's fault: it is checked again next time
            raise
        except UserError as error:
            kept = self.store.keep_aside(work)
            link_relative(self.run_dir / self._row(step).folder / "log.txt", kept / "log.txt")
            problem = str(error).replace(str(work.output), str(kept / "output"))
            advice = advice_on_refused(step, kept / "output", self._requests_of(step))
            raise type(error)(f"{problem}\n  {advice}") from error

    def _requests_of(self, step: Step) -> Path | None:
        source = step.inputs.get("requests")
        return self.finished[source.step].output / source.path if isinstance(source, OutputOf) else None

    def _take_up_repaired(self, step: Step, work: Work, digests: dict[str, str]) -> bool:
        """Go on with samples that were refused before, when somebody has put them right since."""
        kept = self.store.kept_aside(work)
        if kept is None or work.path.exists():
            return False
        try:
            self._unless_stopped(lambda: check_output(step, kept / "output", digests))
        except Interrupted:
            raise
        except UserError:
            return False
        kept.rename(work.path)
        return True

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
                    inputs |= asset_path(name, asset, self.setting)
                case Document(value):
                    write_json(given / name, value)
                    inputs[name] = given / name
                case EmptyFolder():
                    (given / name).mkdir(parents=True)
                    inputs[name] = given / name
        return inputs

    def _unless_stopped(self, work: Callable[[], T]) -> T:
        """The result of `work`, which only reads, or can be ended at any point; Interrupted as soon as a signal comes.

        It runs in a thread that is left to itself then: what waits for a disk or a server does not hear of signals.
        """
        done: Future[T] = Future()

        def fulfil() -> None:
            try:
                done.set_result(work())
            except BaseException as error:
                done.set_exception(error)

        threading.Thread(target=fulfil, daemon=True).start()
        while not wait([done], timeout=_POLL_S).done:
            if self._stop.is_set():
                raise Interrupted("stopped; run the same command to continue")
        return done.result()

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

        # A handler may take no lock: a second signal can interrupt it, or the main thread may hold that very lock. So
        # it only writes a byte, and a thread does what the signal asks for.
        reading, writing = os.pipe()
        os.set_blocking(writing, False)

        def stop(number: int, frame: Any) -> None:
            with suppress(BlockingIOError):  # the pipe is full of signals already
                os.write(writing, b".")

        def watch() -> None:
            while os.read(reading, 1):
                self._stop.set()
                self.scheduler.wake()

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = {number: signal.signal(number, stop) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            os.close(writing)
            watcher.join()
            os.close(reading)


# --- helpers ---------------------------------------------------------------------------------------------------------


def _earlier_outcome(work: Work) -> Outcome | None:
    """How an earlier attempt ended, when its command had succeeded and only the checking and storing was cut off."""
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
    for name in ("in", "given", "scratch", "code"):
        shutil.rmtree(work.path / name, ignore_errors=True)


def _folder(number: int, step: Step) -> str:
    return f"steps/{number:02d}-{step.name}"


def _keep_other_record(run_dir: Path, digest: str) -> None:
    """A run folder named by the user may have served another plan: its record is moved aside, not overwritten."""
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


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
