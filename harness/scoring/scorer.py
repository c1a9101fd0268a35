"""Turns a function into the `score` command, so that every scorer has the same interface.

    def score(job: ScoreJob) -> ScoreRecord: ...

    if __name__ == "__main__":
        raise SystemExit(run_scorer(score))

The command is `score --samples DIR --assets DIR --out DIR [--options FILE]`. Progress goes to stderr as JSON lines,
`score.json` and `items.jsonl` to the output folder, and the exit code is one of those in `harness.contract.errors`.

A scorer may name feature stages: work that depends on fewer inputs than a score (such as a reference batch, whatever
the samples), so that the harness can run each as a separate step and keep the result:

    run_scorer(score, stages={"reference": reference_features})

`score --stage reference --assets DIR --out DIR` then computes that stage alone, `score --features DIR ...` finds
finished stages below DIR, and without it `ScoreJob.stage` computes them below the output folder.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from harness.contract.errors import (
    EXIT_DEFECT,
    EXIT_OK,
    EXIT_PARTLY_SCORED,
    SCORER_STATUSES,
    EnvironmentFailure,
    MissingAsset,
    UserError,
    describe_statuses,
)
from harness.contract.files import explain_disk_errors, read_json, safe_join, write_json
from harness.contract.progress import Progress
from harness.contract.record import SCORE_FILE, ScoreRecord
from harness.contract.requests import RequestSet
from harness.contract.samples import SampleSet
from harness.contract.walk import files_in

STAGE_FILE = "features.json"
"""The file that a stage writes last when it is run alone."""

# What GPU libraries raise when memory or a kernel is lacking, by name: this module must not import any of them.
_ENVIRONMENT_ERRORS = {"OutOfMemoryError", "ResourceExhaustedError", "MemoryError", "AcceleratorError"}
_ENVIRONMENT_PHRASES = ("no kernel image is available", "CUDA error", "CUDA out of memory", "CUDA driver")


class Assets:
    """The asset folder given to a scorer: one folder per asset, files inside."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)

    def path(self, name: str) -> Path:
        """The folder of the asset `name`.

        Raises:
            MissingAsset: it is not there.
        """
        path = safe_join(self.folder, name)
        if not path.is_dir():
            raise MissingAsset(
                f"{path}: the asset {name!r} is not there. Fetch it: harness assets pull {name}   "
                f"Without internet: harness assets import FILE"
            )
        return path

    def file(self, name: str, filename: str | None = None) -> Path:
        """The file `filename` of the asset `name`, or its only file when no name is given.

        Raises:
            MissingAsset: the asset or the file is not there, or there are several files to choose from.
        """
        folder = self.path(name)
        if filename is not None:
            path = safe_join(folder, filename)
            if not path.is_file():
                raise MissingAsset(f"{path}: is missing from the asset {name!r}. Fetch it: harness assets pull {name}")
            return path
        files = files_in(folder, "", error=MissingAsset)
        if len(files) != 1:
            raise MissingAsset(
                f"{folder}: the asset {name!r} has {len(files)} files where one is expected. "
                f"Fetch it again: harness assets pull {name}"
            )
        return files[0]


class Samples(Protocol):
    """What every scorer's samples have; a `SampleSet`, or what `run_scorer(reads=...)` opens instead."""

    @property
    def digest(self) -> str:
        """The identity of the images."""

    @property
    def request_digest(self) -> str | None:
        """Of the request set the samples were drawn for, where it is known."""

    @property
    def requests(self) -> RequestSet | None:
        """The request set the samples were drawn for, where it is known."""

    def __len__(self) -> int: ...


AnySamples = TypeVar("AnySamples", bound=Samples)


@dataclass(frozen=True, kw_only=True)
class FeatureJob(Generic[AnySamples]):
    """What a feature stage is given."""

    assets: Assets
    out: Path
    """The folder it fills."""
    options: Mapping[str, Any]
    given: AnySamples | None = None
    """The samples, for a stage that reads them."""

    @property
    def samples(self) -> AnySamples:
        """The samples; UserError when the command was called without."""
        if self.given is None:
            raise UserError("this stage reads the samples; give --samples DIR.")
        return self.given

    def progress(self, total: int, what: str) -> Progress:
        """Start counting, e.g. `job.progress(10_000, "reference images")`.

        A stage that reads the samples checks them before this: the first line tells the harness that the stages which
        do not read them may begin.
        """
        return Progress(total, what)


FeatureFunction = Callable[[FeatureJob[Any]], None]
"""Computes one feature stage: fills the folder of its job."""


@dataclass(frozen=True, kw_only=True)
class ScoreJob(Generic[AnySamples]):
    """What a scorer is given."""

    samples: AnySamples
    assets: Assets
    out: Path
    """The output folder; a scorer may keep work of its own here, e.g. a judge's answers."""
    options: Mapping[str, Any]
    features: Path | None = None
    """Finished stages, one folder each."""
    stages: Mapping[str, FeatureFunction] = field(default_factory=dict)
    items: list[Mapping[str, Any]] = field(default_factory=list)
    """The scorer appends one object per image or question; they become `items.jsonl`."""

    def progress(self, total: int, what: str) -> Progress:
        """Start counting, e.g. `job.progress(len(job.samples), "images")`."""
        return Progress(total, what)

    def stage(self, name: str) -> Path:
        """The folder of a feature stage: the finished one where there is one, computed now otherwise."""
        if self.features is not None and (self.features / name).is_dir():
            return self.features / name
        folder = self.out / "features" / name
        folder.mkdir(parents=True, exist_ok=True)
        self.stages[name](FeatureJob(assets=self.assets, out=folder, options=self.options, given=self.samples))
        return folder


def run_scorer(
    score: Callable[[ScoreJob[AnySamples]], ScoreRecord],
    argv: Sequence[str] | None = None,
    *,
    stages: Mapping[str, FeatureFunction] | None = None,
    reads: Callable[[Path], AnySamples] = SampleSet.open,  # type: ignore[assignment]
) -> int:
    """Run `score` as the `score` command and return its exit code.

    The digests of samples and requests, the protocol they were drawn by, the options, the total time, the device and
    the Python and NumPy versions are added to the record; what the scorer itself wrote under the same names is kept.

    Args:
        score: samples in, record out; it appends to `job.items`.
        argv: the arguments; those of the process when None.
        stages: feature stages by name.
        reads: opens the samples, for a scorer whose input is not a sample set.
    """
    started = time.monotonic()
    try:
        arguments = _parse_arguments(argv, sorted(stages or {}))
        if arguments.stage:
            return _run_stage(arguments, (stages or {})[arguments.stage], reads)
        job = _open_job(arguments, stages or {}, reads)
        protocol = _protocol(
            job.samples
        )  # early: requests that are not those of the samples are refused before the work
        with explain_disk_errors(job.out):
            record = _complete(score(job), job, protocol, time.monotonic() - started)
            record.write(job.out, job.items)
    except UserError as error:
        return _fail(error)
    except Exception as error:
        if is_environment_error(error):
            return _fail(EnvironmentFailure(f"the environment failed: {type(error).__name__}: {error}"))
        traceback.print_exc()
        return EXIT_DEFECT
    return EXIT_PARTLY_SCORED if record.unscored else EXIT_OK


def describe_environment(packages: Iterable[str] = ()) -> dict[str, str]:
    """Versions for `ScoreRecord.environment`: Python, platform, NumPy and Pillow, and `packages` where installed."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in ("numpy", "pillow", *packages):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def _parse_arguments(argv: Sequence[str] | None, stages: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="score",
        description="Score a sample set.",
        epilog=describe_statuses(*SCORER_STATUSES),
    )
    parser.add_argument("--samples", type=Path, metavar="DIR", help="the sample set")
    parser.add_argument("--assets", type=Path, required=True, metavar="DIR", help="one folder per asset")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="gets score.json and items.jsonl")
    parser.add_argument("--options", type=Path, metavar="FILE", help="a JSON object")
    parser.set_defaults(stage=None, features=None)
    if stages:
        parser.add_argument("--features", type=Path, metavar="DIR", help="finished stages, one folder each")
        parser.add_argument("--stage", choices=stages, help="compute only these features, into OUT")
    arguments = parser.parse_args(argv)
    if arguments.samples is None and arguments.stage is None:
        parser.error("the following arguments are required: --samples")
    return arguments


def _read_options(arguments: argparse.Namespace) -> dict[str, Any]:
    options = read_json(arguments.options) if arguments.options else {}
    if not isinstance(options, dict):
        raise UserError(f"{arguments.options}: holds a {type(options).__name__}, not a JSON object of options.")
    if not arguments.assets.is_dir():
        raise MissingAsset(f"{arguments.assets}: is not a folder; give --assets the folder with one folder per asset.")
    return options


def _open_job(
    arguments: argparse.Namespace, stages: Mapping[str, FeatureFunction], reads: Callable[[Path], AnySamples]
) -> ScoreJob[AnySamples]:
    options, samples = _read_options(arguments), reads(arguments.samples)
    with explain_disk_errors(arguments.out):
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / SCORE_FILE).unlink(missing_ok=True)  # a failure must not leave the score of earlier samples
    return ScoreJob(
        samples=samples,
        assets=Assets(arguments.assets),
        out=arguments.out,
        options=options,
        features=arguments.features,
        stages=stages,
    )


def _run_stage(arguments: argparse.Namespace, stage: FeatureFunction, reads: Callable[[Path], AnySamples]) -> int:
    """One stage alone: its files, and last `features.json`, which says that they are complete and what made them."""
    started = time.monotonic()
    options = _read_options(arguments)
    given = None if arguments.samples is None else reads(arguments.samples)
    with explain_disk_errors(arguments.out):
        arguments.out.mkdir(parents=True, exist_ok=True)
        stage(FeatureJob(assets=Assets(arguments.assets), out=arguments.out, options=options, given=given))
        seconds = round(time.monotonic() - started, 3)
        environment = {"device": _device(), **describe_environment()}
        row = {"stage": arguments.stage, "options": options, "seconds": seconds, "environment": environment}
        write_json(arguments.out / STAGE_FILE, row)
    return EXIT_OK


def _protocol(samples: Samples) -> dict[str, Any]:
    return {} if samples.requests is None else asdict(samples.requests.protocol)


def _complete(record: ScoreRecord, job: ScoreJob[Any], protocol: Mapping[str, Any], seconds: float) -> ScoreRecord:
    digests = {"samples": job.samples.digest}
    if job.samples.request_digest is not None:
        digests["requests"] = job.samples.request_digest
    return replace(
        record,
        digests={**digests, **record.digests},
        options={**job.options, **record.options},
        protocol={**protocol, **record.protocol},
        timings_s={"total": round(seconds, 3), **record.timings_s},
        environment={"device": _devices(job), **describe_environment(), **record.environment},
    )


def _devices(job: ScoreJob[Any]) -> str:
    """The devices that computed the numbers: those of the finished stages, else this process's own."""
    files = sorted(job.features.glob(f"*/{STAGE_FILE}")) if job.features else []
    found = dict.fromkeys(read_json(file)["environment"].get("device") for file in files)
    return ", ".join(filter(None, found)) or _device()


def _device() -> str:
    """The GPU that this process has used, by name, or "cpu". PyTorch is only queried if a scorer has imported it."""
    torch: Any = sys.modules.get("torch")
    return str(torch.cuda.get_device_name()) if torch is not None and torch.cuda.is_initialized() else "cpu"


def _fail(error: UserError) -> int:
    print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
    return error.exit_code


def is_environment_error(error: BaseException) -> bool:
    """Whether the machine is to blame and not the item: no memory, no kernel, a broken driver."""
    if isinstance(error, EnvironmentFailure):
        return True
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & _ENVIRONMENT_ERRORS) or any(phrase in str(error) for phrase in _ENVIRONMENT_PHRASES)
