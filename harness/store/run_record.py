"""The run record: what a run did, step by step, and its results. `runs/<id>/record.json`.

runs/<id>/
  run.json       what was asked for: command line, plan, inputs; written before the first step
  record.json    what happened; written again after every step, so it is there after a kill too
  report.html    for people
  steps/01-requests-adm/ step.json  log.txt  output -> ../../../.store/requests/<key>/output
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from harness.contract.digest import sha256_file
from harness.contract.errors import EXIT_PARTLY_SCORED, UserError, pick
from harness.contract.fields import build
from harness.contract.files import read_head, write_json
from harness.contract.record import SCORE_FILE, ScoreRecord

FORMAT = "run-record"
SCHEMA_VERSION = 1
RUN_FILE = "run.json"
RECORD_FILE = "record.json"
REPORT_FILE = "report.html"

StepStatus = Literal["cached", "run", "resumed", "failed", "skipped", "waiting"]
"""What happened to a step: found finished, computed now, continued from an interrupted attempt, failed, skipped because
an earlier step failed, or not begun yet."""
RunStatus = Literal["running", "finished", "partly", "failed", "interrupted"]
FINISHED = ("cached", "run", "resumed")


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """One step of a run."""

    name: str
    kind: str
    benchmark: str | None = None
    title: str = ""
    status: StepStatus | str = "waiting"
    """A record of another version may have a status that this one does not know; it is shown as it is."""
    folder: str = ""
    """Of this step, relative to the run folder."""
    key: str | None = None
    """What the output is stored under: the digest of everything that determines it."""
    digest: str | None = None
    """Of the output."""
    exit_code: int | None = None
    """Of its program; its meaning is in `harness.contract.errors`."""
    seconds: float = 0.0
    """In this run: near zero for a step found finished."""
    computed_s: float | None = None
    """What computing it took, in whichever run that was (the last attempt, if it was interrupted)."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """Input -> digest."""
    environment: Mapping[str, Any] = field(default_factory=dict)
    """Runtime, image id or lock digest, Python: of the run that computed it."""
    gpus: tuple[str, ...] = ()
    forced: bool = False
    """Computed again by `--force` although it was there, in whichever run that was."""
    error: str = ""

    @property
    def is_finished(self) -> bool:
        """Whether there is an output."""
        return self.status in FINISHED

    @property
    def is_partly_scored(self) -> bool:
        """Scored, but some items could not be."""
        return self.exit_code == EXIT_PARTLY_SCORED


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """A run, finished or not."""

    run: str
    """Name of the run folder."""
    status: RunStatus | str = "running"
    plan_digest: str
    generator: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    """What was asked for: benchmarks, suite, limit, protocol, options."""
    runtime: str = ""
    command: tuple[str, ...] = ()
    """As typed."""
    forced: bool = False
    """`--force` was given."""
    started: str = ""
    """ISO 8601, UTC."""
    finished: str = ""
    seconds: float = 0.0
    machine: Mapping[str, Any] = field(default_factory=dict)
    harness: Mapping[str, Any] = field(default_factory=dict)
    steps: tuple[StepResult, ...] = ()

    def step(self, name: str) -> StepResult:
        """The step called `name`."""
        return next(step for step in self.steps if step.name == name)

    def write(self, run_dir: Path) -> None:
        """Write record.json, atomically."""
        write_json(
            run_dir / RECORD_FILE, {"format": FORMAT, "schema_version": SCHEMA_VERSION, **dataclasses.asdict(self)}
        )

    @classmethod
    def read(cls, run_dir: Path) -> RunRecord:
        """Read and validate record.json.

        Raises:
            UserError: naming the file and the field.
        """
        path = run_dir / RECORD_FILE
        if not path.is_file():
            raise UserError(f"{path}: is missing, so this is not a run folder. List the runs: harness ls")
        row = read_head(path, FORMAT, SCHEMA_VERSION)
        missing = sorted({entry.name for entry in dataclasses.fields(cls)} - row.keys())
        if missing:  # the harness writes all of them; the defaults are for a run that is only beginning
            raise UserError(f"{path}: the field {missing[0]!r} is missing; run the same command again.")
        return build(cls, row, str(path))

    def scores(self, run_dir: Path) -> dict[str, ScoreRecord]:
        """Benchmark -> score record, for every score step that finished; by step where a benchmark was scored twice."""
        scored = [step for step in self.steps if step.kind == "score" and step.is_finished]
        benchmarks = [step.benchmark for step in scored]
        names = [step.name if benchmarks.count(step.benchmark) > 1 else str(step.benchmark) for step in scored]
        return dict(zip(names, (read_score(run_dir, step) for step in scored), strict=True))


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run folder with its record: what `harness.run` returns."""

    folder: Path
    """`runs/<name>`, with record.json and one folder per step."""
    record: RunRecord
    """What happened, step by step, with every digest."""

    @classmethod
    def read(cls, folder: Path) -> Run:
        """The run in a folder; UserError when its record is missing or damaged."""
        return cls(folder=folder, record=RunRecord.read(folder))

    @cached_property
    def scores(self) -> dict[str, ScoreRecord]:
        """Benchmark -> its score, for every benchmark that was scored.

        Raises:
            UserError: a score is damaged, or not the one that the run wrote.
        """
        return self.record.scores(self.folder)


def read_score(run_dir: Path, step: StepResult) -> ScoreRecord:
    """The score of a finished step.

    Raises:
        UserError: it is damaged, or not the one that the run wrote down.
    """
    folder = run_dir / step.folder / "output"
    score = ScoreRecord.read(folder)
    if sha256_file(folder / SCORE_FILE) != step.digest:
        raise UserError(
            f"{folder / SCORE_FILE}: does not match its digest in {RECORD_FILE} (it was edited, or computed again "
            "by another run); run the same command again."
        )
    return score


def find_runs(runs_dir: Path, unreadable: Callable[[UserError], object] | None = None) -> list[RunRecord]:
    """Every run of a folder, oldest first; folders without a record are not runs.

    Args:
        runs_dir: the folder.
        unreadable: called with the error of each record that cannot be read; the others are still returned. None: the
            first error is raised.
    """
    records = []
    for path in sorted(runs_dir.glob(f"*/{RECORD_FILE}")):
        try:
            records.append(RunRecord.read(path.parent))
        except UserError as error:
            if unreadable is None:
                raise
            unreadable(error)
    return sorted(records, key=lambda record: record.started)


def find_run(name: str, runs_dir: Path) -> Path:
    """The run folder called `name`: a folder, a run's name, or the beginning of one.

    Raises:
        UserError: there is none, or several.
    """
    for path in (runs_dir / name, Path(name)):
        if (path / RECORD_FILE).is_file():
            return path
    runs = {path.parent.name: path.parent for path in sorted(runs_dir.glob(f"*/{RECORD_FILE}"))}
    matches = [path for run, path in runs.items() if run.startswith(name)]
    if len(matches) > 1:
        raise UserError(
            f"'{name}' begins {len(matches)} runs ({', '.join(path.name for path in matches)}); give more of it."
        )
    found: Path = matches[0] if matches else pick(runs, name, "run", "harness ls")
    return found
