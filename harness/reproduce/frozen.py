"""The small folder that a paper's repository keeps of a run: `harness freeze`.

It reads as a run folder does, so every command takes it, and it is complete by itself on another machine:

DIR/
  frozen.json    the digest of every file below, of every item, and of every asset that was read
  record.json  run.json
  locks/         the lock file of each scorer, where it is still the one of the run
  steps/         of the requests and scores everything that is text; of the samples the digest of each image, and with
                 `--samples` the images
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.catalog.project import Project
from harness.contract.digest import sha256_file
from harness.contract.errors import UserError
from harness.contract.fields import Text, build
from harness.contract.files import read_head, read_json, safe_join, write_json
from harness.contract.record import ITEMS_FILE, SCORE_FILE
from harness.contract.requests import HEAD_FILE, LINES_FILE, RequestSet
from harness.contract.samples import IMAGES_DIR, INDEX_FILE, MANIFEST_FILE, NPZ_FILE, SampleSet
from harness.contract.walk import walk
from harness.store.folders import publish_folder
from harness.store.run_record import RECORD_FILE, RUN_FILE, Run, StepResult

FORMAT = "frozen-run"
SCHEMA_VERSION = 1
FROZEN_FILE = "frozen.json"
LOCKS_DIR = "locks"
SAMPLES_DIR = "samples"
"""Beside a score's output: the sample set of a user that was scored as it was."""

_STATED = (HEAD_FILE, LINES_FILE, MANIFEST_FILE, INDEX_FILE, SCORE_FILE, ITEMS_FILE)
_ITEM_DIGITS = 12


@dataclass(frozen=True, kw_only=True)
class Frozen:
    """The contents of frozen.json."""

    run: Text
    files: Mapping[str, str]
    """Relative POSIX path -> sha256."""
    items: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Path of an items.jsonl -> the beginning of the sha256 of each line, so that a changed item can be named."""
    samples: Mapping[str, str] = field(default_factory=dict)
    """Step -> digest of the images that it drew or scored."""
    assets: Mapping[str, str] = field(default_factory=dict)
    """Asset -> sha256, of everything from outside that a scorer read."""
    has_images: bool = False
    """Whether the images were taken along."""

    @classmethod
    def read(cls, folder: Path) -> Frozen | None:
        """What frozen.json states; None for a run folder, which has none.

        Raises:
            UserError: naming the file and the field.
        """
        path = folder / FROZEN_FILE
        return build(cls, read_head(path, FORMAT, SCHEMA_VERSION), str(path)) if path.is_file() else None


def freeze(run: Run, out: Path, project: Project, *, samples: bool = False) -> Path:
    """Write the frozen folder of a run, and return it.

    Args:
        run: a run of which at least one score finished.
        out: the folder to make.
        project: where the lock files are.
        samples: whether to take the images along; their digests always are.
    Raises:
        UserError: there is something at `out`, or the run has no score.
    """
    if out.exists():
        raise UserError(f"{out}: is there already; give --out a new folder, or remove this one.")
    if not run.scores:
        raise UserError(f"{run.folder}: has no finished score to freeze; run its command again.")
    publish_folder(out, lambda folder: _fill(folder, run, project, samples))
    return out


def sample_folder(run: Run, step: StepResult) -> Path | None:
    """The sample set that a step drew or, where a user's own was scored as it was, that a score read; None: unknown."""
    if step.kind == "sample":
        return run.folder / step.folder / "output"
    kept = run.folder / step.folder / SAMPLES_DIR
    if step.kind != "score" or kept.is_dir():
        return kept if kept.is_dir() else None
    return next((Path(source["file"]) for source in _sources(run, step) if source.get("kind") == "sample"), None)


def requests_of(run: Run, benchmark: str) -> RequestSet | None:
    """What was drawn for a benchmark; None where it is not known, or no longer here."""
    for step in run.record.steps:
        if step.benchmark != benchmark or not step.is_finished:
            continue
        folder = run.folder / step.folder / "output" if step.kind == "requests" else sample_folder(run, step)
        if folder is not None and (folder / HEAD_FILE).is_file():
            return RequestSet.read(folder)
    return None


def item_digests(path: Path) -> list[str]:
    """The beginning of the sha256 of each line."""
    with path.open("rb") as handle:
        return [hashlib.sha256(line).hexdigest()[:_ITEM_DIGITS] for line in handle]


def _sources(run: Run, step: StepResult) -> Iterator[Mapping[str, Any]]:
    """Where the inputs of a step came from, as run.json describes them."""
    path = run.folder / RUN_FILE
    plan = read_json(path).get("plan", {}) if path.is_file() else {}
    for row in plan.get("steps", ()):
        if row.get("name") == step.name:
            yield from (source for source in row.get("inputs", {}).values() if isinstance(source, dict))


def _fill(folder: Path, run: Run, project: Project, samples: bool) -> None:
    for name in (RECORD_FILE, RUN_FILE):
        _copy(run.folder / name, folder / name)
    digests = {}
    for step in run.record.steps:
        if not step.is_finished:
            continue
        if step.kind in ("requests", "score"):
            _copy_stated(run.folder / step.folder / "output", folder / step.folder / "output")
        source = sample_folder(run, step)
        if source is not None and source.is_dir():
            target = folder / step.folder / ("output" if step.kind == "sample" else SAMPLES_DIR)
            digests[step.name] = _copy_samples(source, target, pixels=samples)
        _copy_lock(step, project, folder / LOCKS_DIR)
    files = {name: sha256_file(folder / name) for name in walk(folder)}
    head = {"format": FORMAT, "schema_version": SCHEMA_VERSION, "run": run.record.run, "has_images": samples}
    items = {name: item_digests(folder / name) for name in files if name.endswith(f"/{ITEMS_FILE}")}
    row = {**head, "samples": digests, "assets": _assets(run), "files": files, "items": items}
    write_json(folder / FROZEN_FILE, row)


def _copy_stated(source: Path, target: Path) -> None:
    for name in _STATED:
        if (source / name).is_file():
            _copy(source / name, target / name)


def _copy_samples(source: Path, target: Path, *, pixels: bool) -> str:
    _copy_stated(source, target)
    found = SampleSet.open(source)
    if pixels:
        names = [NPZ_FILE] if found.form == "npz" else [f"{IMAGES_DIR}/{entry.path}" for entry in found.entries]
        for name in names:
            _copy(safe_join(source, name), target / name)
    return found.digest


def _copy_lock(step: StepResult, project: Project, folder: Path) -> None:
    lock = step.environment.get("lock")
    if not isinstance(lock, str):
        return
    try:
        path = project.path(lock)
    except UserError:  # the run was made by another version: the record has the digest
        return
    if sha256_file(path) == step.environment.get("lock_sha256"):
        _copy(path, folder / f"{step.name}.lock")


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _assets(run: Run) -> dict[str, str]:
    digests = {name: value for score in run.scores.values() for name, value in score.digests.items()}
    return {name.removeprefix("asset:"): value for name, value in digests.items() if name.startswith("asset:")}
