"""Checks what a step wrote before anything relies on it, and digests it by the rules of its kind."""

from __future__ import annotations

import itertools
import os
import stat
from pathlib import Path
from typing import NoReturn

from harness.contract.digest import sha256_file
from harness.contract.errors import BadSamples, UserError
from harness.contract.record import SCORE_FILE, ScoreRecord
from harness.contract.requests import RequestSet
from harness.contract.samples import SampleSet
from harness.planning.steps import Step
from harness.store.digests import DigestMemo, digest_of_samples


def digest_of(kind: str, path: Path, memo: DigestMemo) -> str:
    """Digest of what is at `path`: requests, samples and scores by their own rules; else of names and bytes."""
    match kind:
        case "requests":
            return RequestSet.read(path).digest
        case "sample":
            return digest_of_samples(SampleSet.open(path))
        case "score":
            return sha256_file(path / SCORE_FILE)
        case _:
            return memo.of(path)


def check_output(step: Step, folder: Path, input_digests: dict[str, str]) -> None:
    """Read everything a step wrote, as its readers will.

    Raises:
        UserError: naming the file and what is wrong with it.
    """
    _check_plain(step, folder)
    for name in step.produces:
        if not (folder / name).exists():
            raise UserError(f"{step.name} succeeded but did not write {name}; correct the program.")
    match step.kind:
        case "requests":
            RequestSet.read(folder)
        case "sample":
            _check_samples(step, folder, input_digests.get("requests"))
        case "score":
            _check_score(step, folder)


def _check_plain(step: Step, folder: Path) -> None:
    """Refuse what a reader would wait on for ever, or follow out of the folder, before anything is opened."""
    inside = (
        Path(place) / name for place, folders, names in os.walk(folder, onerror=_fail) for name in folders + names
    )
    for path in itertools.chain([folder], inside):
        kind = _UNUSUAL.get(stat.S_IFMT(path.lstat().st_mode))
        if kind:
            error = BadSamples if step.kind == "sample" else UserError
            raise error(
                f"{path}: is a {kind}, where the output of a step is plain files and folders; replace it by what it "
                f"stands for (cp -L), or correct the program of {step.name}."
            )


_UNUSUAL = {
    stat.S_IFLNK: "symbolic link",
    stat.S_IFIFO: "named pipe",
    stat.S_IFSOCK: "socket",
    stat.S_IFBLK: "device",
    stat.S_IFCHR: "device",
}


def _fail(error: OSError) -> NoReturn:
    raise UserError(f"{error.filename}: cannot be read ({error.strerror}); correct its permissions.") from error


def _check_samples(step: Step, folder: Path, wanted: str | None) -> None:
    samples = SampleSet.open(folder)
    if wanted is not None and samples.request_digest != wanted:
        raise BadSamples(f"{step.name} drew images for other requests than those it was given; correct the generator.")
    samples.validate()


def _check_score(step: Step, folder: Path) -> None:
    record = ScoreRecord.read(folder)
    expected = (step.benchmark, step.identity.get("benchmark_version"))
    if (record.benchmark, record.benchmark_version) != expected:
        raise UserError(
            f"{folder / SCORE_FILE}: is for {record.benchmark} version {record.benchmark_version}, not {expected[0]} "
            f"version {expected[1]}; make scorer.py and benchmark.yaml agree."
        )
