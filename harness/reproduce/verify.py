"""Whether a record still states what its files hold: `harness verify`.

Every digest and every metric that follows from the items is computed again, without a scorer, a GPU or a network, on
any machine, from a run folder or a frozen one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness.catalog.benchmarks import Benchmark, read_recompute
from harness.contract.digest import sha256_file
from harness.contract.errors import MissingAsset, UserError
from harness.contract.files import read_json_lines, safe_join
from harness.contract.items import ItemSource
from harness.contract.record import ITEMS_FILE, SCORE_FILE, Metric, ScoreRecord, read_items
from harness.contract.requests import RequestSet
from harness.contract.samples import SampleSet
from harness.reproduce.frozen import FROZEN_FILE, Frozen, item_digests, sample_folder
from harness.store.digests import digest_of_samples
from harness.store.run_record import RECORD_FILE, Run, StepResult

RELATIVE, ABSOLUTE = 1e-9, 1e-12
"""How far the same sum may be off on another machine: processors add in other orders."""

_BATCH = 32
_NOT_OF_ITEMS = "does not follow from the items: it needs features of the images, or another measurement"

Verdict = Literal["same", "changed", "not checked"]
FindAsset = Callable[[str], Path | None]
"""The file of an asset on this machine, by name; None: it is not here."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    what: str
    """A file relative to the folder, or a metric."""
    verdict: Verdict
    why: str = ""


def verify(folder: Path, benchmarks: Mapping[str, Benchmark], find_asset: FindAsset) -> Iterator[Finding]:
    """Look at everything in a run folder or a frozen one, and say of each thing whether it is what it was.

    Args:
        folder: has record.json.
        benchmarks: by id; the metrics of one that is not among them are not computed.
        find_asset: for the few metrics that need a file from outside, such as a question table.
    """
    try:
        frozen = Frozen.read(folder)
        if frozen is not None:
            yield from _frozen_files(folder, frozen)
        run = Run.read(folder)
    except UserError as error:
        yield _broken(RECORD_FILE, error)
        return
    yield Finding(what=RECORD_FILE, verdict="same")
    for step in run.record.steps:
        if not step.is_finished:
            yield Finding(what=step.name, verdict="not checked", why=f"the step is {step.status}")
        elif step.kind == "requests":
            yield from _requests(run, step)
        elif step.kind == "sample":
            yield from _samples(run, step, step.digest)
        elif step.kind == "score":
            yield from _samples(run, step, step.inputs.get("samples"))
            yield from _score(run, step, benchmarks, find_asset)
        else:
            yield Finding(what=step.name, verdict="not checked", why=f"no record keeps the output of {step.kind}")


# --- files -----------------------------------------------------------------------------------------------------------


def _frozen_files(folder: Path, frozen: Frozen) -> Iterator[Finding]:
    for name, sha256 in frozen.files.items():
        path = safe_join(folder, name)
        if not path.is_file():
            yield Finding(what=name, verdict="changed", why="is missing")
        elif sha256_file(path) != sha256:
            items = _changed_items(path, frozen.items[name]) if name in frozen.items else ""
            yield Finding(what=name, verdict="changed", why=f"is not the file of {FROZEN_FILE}{items}")
        else:
            yield Finding(what=name, verdict="same")


def _changed_items(path: Path, digests: tuple[str, ...]) -> str:
    """Which lines are not what they were, by the id of the item where it can be read."""
    now = item_digests(path)
    if len(now) != len(digests):
        return f": {len(now)} items instead of {len(digests)}"
    numbers = [number for number, pair in enumerate(zip(now, digests, strict=True), start=1) if len(set(pair)) > 1]
    try:
        ids = {number: str(row.get("id", "")) for number, row in read_json_lines(path) if number in numbers}
    except UserError:
        ids = {}
    names = [f"line {number} ({ids[number]})" if ids.get(number) else f"line {number}" for number in numbers]
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f": {', '.join(names[:5])}{more}"


def _requests(run: Run, step: StepResult) -> Iterator[Finding]:
    folder = run.folder / step.folder / "output"
    if not folder.is_dir():
        yield Finding(what=step.name, verdict="not checked", why="the requests are not in the folder")
        return
    try:
        same = RequestSet.read(folder).digest == step.digest
    except UserError as error:
        yield _broken(step.name, error)
        return
    yield _compared(f"{step.name}, requests", same)


def _samples(run: Run, step: StepResult, digest: str | None) -> Iterator[Finding]:
    """The images of a step: what states them, their digest in the record, and every pixel that is here."""
    folder, what = sample_folder(run, step), f"{step.name}, samples"
    if folder is None:
        if not any(other.kind == "sample" for other in run.record.steps):  # else they are looked at with their own step
            yield Finding(what=what, verdict="not checked", why="the record does not say where they are")
        return
    if not folder.is_dir():
        yield Finding(what=what, verdict="not checked", why=f"{folder} is not here")
        return
    try:
        samples = SampleSet.open_index(folder)
        yield _compared(what, digest in (None, digest_of_samples(samples)))
        if not samples.has_pixels:
            yield Finding(what=f"{step.name}, pixels", verdict="not checked", why="the images are not in the folder")
            return
        _check_pixels(folder)
        yield Finding(what=f"{step.name}, pixels", verdict="same")
    except UserError as error:
        yield _broken(what, error)


def _check_pixels(folder: Path) -> None:
    """Read everything of a sample set; BadSamples names the first image that is not the one in the index."""
    samples = SampleSet.open(folder)
    # By number first: read as a whole, an archive with one changed byte is a broken archive, and no image is named.
    for start in range(0, len(samples), _BATCH):
        samples.images(range(start, min(start + _BATCH, len(samples))))
    samples.validate()


# --- scores ----------------------------------------------------------------------------------------------------------


def _score(run: Run, step: StepResult, benchmarks: Mapping[str, Benchmark], find_asset: FindAsset) -> Iterator[Finding]:
    folder = run.folder / step.folder / "output"
    where = f"{step.name}, "
    if not (folder / SCORE_FILE).is_file():
        yield Finding(what=where + SCORE_FILE, verdict="changed", why="is missing")
        return
    yield _compared(where + SCORE_FILE, sha256_file(folder / SCORE_FILE) == step.digest)
    try:
        record = ScoreRecord.read(folder, check_items=False)
        yield from _score_digests(run, step, record)
    except UserError as error:
        yield _broken(where + SCORE_FILE, error)
        return
    try:
        ScoreRecord.read(folder)
        yield Finding(what=where + ITEMS_FILE, verdict="same")
    except UserError as error:
        yield _broken(where + ITEMS_FILE, error)
    yield from _metrics(where, folder, record, benchmarks.get(record.benchmark), find_asset)


def _score_digests(run: Run, step: StepResult, record: ScoreRecord) -> Iterator[Finding]:
    """Whether the score is of the requests and images of the run."""
    steps = [other for other in run.record.steps if other.is_finished and other.benchmark == step.benchmark]
    requests = {other.digest for other in steps if other.kind == "requests"}
    if requests and "requests" in record.digests:
        yield _compared(f"{step.name}, its requests", record.digests["requests"] in requests)
    drawn = [other for other in steps if other.kind == "sample" and other.digest in step.inputs.values()] or [step]
    folders = [folder for folder in (sample_folder(run, other) for other in drawn) if folder and folder.is_dir()]
    if folders:
        stated = {SampleSet.open_index(folder).digest for folder in folders}
        yield _compared(f"{step.name}, its samples", record.digests.get("samples") in stated)


def _metrics(
    where: str, folder: Path, record: ScoreRecord, benchmark: Benchmark | None, find_asset: FindAsset
) -> Iterator[Finding]:
    found, why = _recomputed(folder, record, benchmark, find_asset)
    for metric in record.metrics:
        what = where + name_of(metric)
        again = found.pop((metric.name, metric.category), None)
        if again is None:
            yield Finding(what=what, verdict="not checked", why=why)
        else:
            yield _metric(what, metric, again)
    for metric in found.values():
        yield Finding(what=where + name_of(metric), verdict="changed", why=f"the items give it, {SCORE_FILE} has none")


def _recomputed(
    folder: Path, record: ScoreRecord, benchmark: Benchmark | None, find_asset: FindAsset
) -> tuple[dict[tuple[str, str | None], Metric], str]:
    """The metrics from the items, and why the others are missing."""
    if benchmark is None or benchmark.version != record.benchmark_version:
        return {}, f"{record.benchmark} version {record.benchmark_version} is not among the benchmarks here"
    recompute = read_recompute(benchmark)
    if recompute is None:
        return {}, _NOT_OF_ITEMS
    try:
        metrics = recompute.metrics_from_items(list(read_items(folder)), source_of(record, find_asset))
    except MissingAsset as error:
        return {}, str(error)
    except (UserError, ArithmeticError, LookupError, TypeError, ValueError) as error:  # items that were tampered with
        return {}, f"the items cannot be summed up ({type(error).__name__}: {error})"
    return {(metric.name, metric.category): metric for metric in metrics}, _NOT_OF_ITEMS


def source_of(record: ScoreRecord, find_asset: FindAsset) -> ItemSource:
    """Where the items of a record are from; an asset is only given if it is the one the scorer read."""

    def asset(name: str) -> Path:
        path = find_asset(name)
        if path is None or not path.is_file() or sha256_file(path) != record.digests.get(f"asset:{name}"):
            raise MissingAsset(
                f"it needs the file of the asset {name} that the scorer read, which is not here (harness assets pull "
                f"{name}, or --asset {name}=FILE)"
            )
        return path

    return ItemSource(benchmark=record.benchmark, options=record.options, asset=asset)


def _metric(what: str, stated: Metric, again: Metric) -> Finding:
    pairs = [(stated.value, again.value), (stated.n, again.n)]
    if stated.interval is not None and again.interval is not None:
        pairs += zip(stated.interval, again.interval, strict=True)
    if all(_close(*pair) for pair in pairs):
        return Finding(what=what, verdict="same")
    values = [f"{metric.value} (n {metric.n})" for metric in (stated, again)]
    return Finding(what=what, verdict="changed", why=f"{SCORE_FILE} says {values[0]}, the items give {values[1]}")


def _close(one: float | None, other: float | None) -> bool:
    if one is None or other is None or not math.isfinite(other):
        return one is None and (other is None or not math.isfinite(other))
    return math.isclose(one, other, rel_tol=RELATIVE, abs_tol=ABSOLUTE)


def name_of(metric: Metric) -> str:
    """A metric in one word, with its category."""
    return f"{metric.name} ({metric.category})" if metric.category else metric.name


def _compared(what: str, same: bool) -> Finding:
    why = "" if same else f"does not match its digest in {RECORD_FILE}"
    return Finding(what=what, verdict="same" if same else "changed", why=why)


def _broken(what: str, error: UserError) -> Finding:
    return Finding(what=what, verdict="changed", why=str(error))
