"""The report of a run folder: what `harness report` and the end of `harness run` write.

Reads `record.json` and what it points to. A part that cannot be shown (a failed step, a damaged score) becomes a note
in the report; the rest is still shown.
"""

from __future__ import annotations

import dataclasses
import os
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from harness.contract.errors import UserError
from harness.contract.progress import format_seconds
from harness.contract.record import ScoreRecord
from harness.contract.samples import SampleSet
from harness.report.declared import published_by, withheld_by
from harness.report.formats import in_words
from harness.report.html import Report
from harness.report.sections import (
    Facts,
    Gallery,
    Grid,
    GridRow,
    ModelGrid,
    Note,
    Provenance,
    ScoreColumn,
    ScoreTable,
    Section,
    Timing,
    Timings,
)
from harness.store.run_record import REPORT_FILE, RunRecord, StepResult, read_score

if TYPE_CHECKING:
    from harness.catalog.benchmarks import Catalog

NUM_ROWS, PER_ROW = 10, 8
NUM_PROMPTS = 12
STATUS_WORDS = {"partly": "finished, with some items not scored"}
LOG_FILE = "log.txt"
LOG_TAIL_LINES = 20
LOG_TAIL_BYTES = 16_384


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """One output of a run as the report needs it: read once, shown in several places."""

    step: StepResult | None
    """None for samples that were there before the run."""
    score: ScoreRecord | None = None
    samples: SampleSet | None = None
    problem: str = ""
    """Why it could not be read."""

    @property
    def name(self) -> str:
        """The name of the step, or a description where there is none."""
        return self.step.name if self.step else "the given samples"


def report_for_run(run_dir: Path, catalog: Catalog | None = None) -> Path:
    """Write `report.html` into a run folder from its `record.json`; returns the report's path.

    Args:
        run_dir: `runs/<id>`.
        catalog: where titles, labels and published values of the benchmarks are looked up; None shows none.

    Raises:
        UserError: there is no readable record.json.
    """
    record = RunRecord.read(run_dir)
    scores = [_read_score(run_dir, step) for step in _finished(record, "score")]
    samples = [_read_samples(step, run_dir / step.folder / "output") for step in _finished(record, "sample")]
    if record.generator.get("kind") == "samples" and not samples:  # a finished sample set was scored in place
        samples = [_read_samples(None, Path(str(record.generator.get("path"))))]
    sections = (
        *state_notes(run_dir, record),
        *_scores(record, scores, catalog),
        *_samples(samples),
        timings(record),
        provenance(record, scores, samples),
    )
    return Report(title=record.run, subtitle=_subtitle(record), sections=sections).write(run_dir / REPORT_FILE)


def _finished(record: RunRecord, kind: str) -> list[StepResult]:
    return [step for step in record.steps if step.kind == kind and step.is_finished]


def _read_score(run_dir: Path, step: StepResult) -> Finding:
    try:
        return Finding(step=step, score=read_score(run_dir, step))
    except UserError as error:
        return Finding(step=step, problem=str(error))


def _read_samples(step: StepResult | None, folder: Path) -> Finding:
    try:
        return Finding(step=step, samples=SampleSet.open(folder))
    except UserError as error:
        return Finding(step=step, problem=str(error))


def _subtitle(record: RunRecord) -> str:
    started = f"started {record.started[:16].replace('T', ' ')} UTC" if record.started else ""
    time = format_seconds(record.seconds) if record.seconds else ""
    return ", ".join(part for part in (STATUS_WORDS.get(record.status, record.status), started, time) if part)


# What failed, and what is left to do


def state_notes(run_dir: Path, record: RunRecord) -> Iterator[Note]:
    for step in record.steps:
        if step.status == "failed":
            log = _tail(run_dir / step.folder / LOG_FILE)
            yield Note(kind="error", title=f"{step.name} failed", text=step.error or "Its log ends:", details=log)
    undone = [step.name for step in record.steps if step.status in ("skipped", "waiting")]
    if undone:
        command = shlex.join(record.command)
        again = f" The same command continues from here: {command}" if command else ""
        text = f"Without a result: {in_words(undone)}.{again}"
        yield Note(kind="warning", title="Some steps have no result", text=text)
    forced = [step.name for step in record.steps if step.forced]
    if forced:
        yield Note(text=f"Computed again on request (--force), although a result existed: {in_words(forced)}.")


def _tail(log_path: Path) -> str:
    """The last lines of a log, without reading a long one whole; nothing for a step without a log."""
    if not log_path.is_file():
        return ""
    with log_path.open("rb") as log:
        log.seek(max(0, log_path.stat().st_size - LOG_TAIL_BYTES), os.SEEK_SET)
        text = log.read().decode("utf-8", errors="replace")
    return "\n".join(text.splitlines()[-LOG_TAIL_LINES:])


# Scores


def _scores(record: RunRecord, findings: list[Finding], catalog: Catalog | None) -> Iterator[Section]:
    if not findings:
        yield Note(text="This run has no score yet.")
    for finding in findings:
        if finding.score is None:
            yield Note(kind="error", title=f"The result of {finding.name} cannot be shown", text=finding.problem)
            continue
        benchmark = catalog.benchmarks.get(finding.score.benchmark) if catalog else None
        label = str(record.generator.get("name") or record.run)
        yield ScoreTable(
            title=benchmark.title if benchmark else finding.score.benchmark,
            columns=(ScoreColumn(label=label, record=finding.score),),
            published=published_by(benchmark, finding.score.options),
        )
        if withheld := withheld_by(benchmark, finding.score.options):
            yield Note(text=withheld)


# Samples


def _samples(findings: list[Finding]) -> Iterator[Section]:
    for finding in findings:
        title = f"Samples for {finding.step.benchmark}" if finding.step else "Samples"
        if finding.samples is None:
            yield Note(kind="error", title=f"{title} cannot be shown", text=finding.problem)
            continue
        try:
            yield sample_section(finding.samples, title)
        except UserError as error:
            yield Note(kind="error", title=f"{title} cannot be shown", text=str(error))


def sample_section(samples: SampleSet, title: str) -> Section:
    """A grid by class, a gallery with prompts, or a plain grid: whichever the sample set allows.

    Raises:
        BadSamples: a picture to be shown is not what the index says.
    """
    size = f"{len(samples):,} images of {samples.image_size} pixels"
    requests = samples.requests
    if requests is not None and not requests.is_class_conditional:
        picked = _spread(len(samples), NUM_PROMPTS)
        captions = tuple(str(requests[i].prompt) for i in picked)
        caption = f"{len(picked)} of {size}, evenly spread over the prompts and not chosen by looks."
        return Gallery(title=title, images=samples.images(picked), captions=captions, caption=caption)
    rows = rows_by_class(samples.labels)
    if rows:
        caption = f"Rows are classes, in each the first samples drawn; from {size}, not chosen by looks."
    else:
        picked = _spread(len(samples), NUM_ROWS * PER_ROW)
        rows = [("", picked[i : i + PER_ROW]) for i in range(0, len(picked), PER_ROW)]
        caption = f"{len(picked)} of {size}, evenly spread and not chosen by looks."
    grid_rows = tuple(GridRow(label=name, images=samples.images(indices)) for name, indices in rows)
    return Grid(title=title, models=(ModelGrid(label="", rows=grid_rows),), caption=caption)


def rows_by_class(labels: np.ndarray | None) -> list[tuple[str, list[int]]]:
    """Up to NUM_ROWS classes spread over those present, with the first PER_ROW samples of each.

    Empty where there are no labels, or where classes have a single sample each, so that rows would show nothing.
    """
    if labels is None:
        return []
    present, counts = np.unique(labels, return_counts=True)
    present = present[counts > 1]
    chosen = [int(present[i]) for i in _spread(len(present), NUM_ROWS)]
    return [(str(class_id), np.flatnonzero(labels == class_id)[:PER_ROW].tolist()) for class_id in chosen]


def _spread(count: int, wanted: int) -> list[int]:
    """`wanted` indices evenly spread over range(count), or all of them."""
    return np.unique(np.linspace(0, count - 1, min(count, wanted)).round().astype(int)).tolist() if count else []


# Time and provenance


def timings(record: RunRecord) -> Timings:
    bars = []
    for step in record.steps:
        seconds = {"cached": step.computed_s, "skipped": None, "waiting": None}.get(step.status, step.seconds)
        status = "" if step.status == "run" else step.status
        bars.append(Timing(stage=step.name, seconds=seconds, status=status, ran=step.status != "cached"))
    caption = "Time by step, on one scale; an outlined bar is a cached result and shows the time it took originally."
    return Timings(title="Time", timings=tuple(bars), caption=caption)


def provenance(record: RunRecord, scores: list[Finding], samples: list[Finding]) -> Provenance:
    run = {
        "plan": record.plan_digest,
        "runtime": record.runtime,
        "started": record.started,
        "finished": record.finished,
    }
    facts = [
        Facts(title="Run", values={name: value for name, value in run.items() if value}),
        Facts(title="Generator", values=record.generator),
        Facts(title="Asked for", values=record.options),
        Facts(title="Machine", values=record.machine),
        Facts(title="Harness", values=record.harness),
        *(Facts(title=step.name, values=_step_values(step)) for step in record.steps),
        *(Facts(title=f"Sample set of {f.name}", values=_sample_values(f.samples)) for f in samples if f.samples),
        *(Facts(title=f"Score record of {f.name}", values=_score_values(f.score)) for f in scores if f.score),
    ]
    commands = (shlex.join(record.command),) if record.command else ()
    return Provenance(commands=commands, facts=tuple(facts))


def _step_values(step: StepResult) -> Mapping[str, object]:
    values = {
        "status": step.status,
        "key": step.key,
        "output": step.digest,
        "input": dict(step.inputs),
        "environment": dict(step.environment),
        "GPUs": ", ".join(step.gpus),
    }
    return {name: value for name, value in values.items() if value}


def _sample_values(samples: SampleSet) -> Mapping[str, object]:
    return {
        "digest": samples.digest,
        "requests": samples.request_digest,
        "count": len(samples),
        "generator": dict(samples.generator),
    }


def _score_values(score: ScoreRecord) -> Mapping[str, object]:
    return {
        "benchmark": f"{score.benchmark} version {score.benchmark_version}",
        "digests": dict(score.digests),
        "options": dict(score.options),
        "environment": dict(score.environment),
        "seconds": dict(score.timings_s),
    }
