"""The vocabulary of a run: environments, inputs, steps and plans, as data, and what a generator must be able to do.

Nothing here runs or writes anything. A step is a command in an environment, with read-only inputs and one writable
output folder. Its `argv` may contain

    {python}   the interpreter of its environment
    {code}     the folder that holds the project's code for this environment
    {in}       the folder of its inputs, by name: {in}/samples, {in}/assets, {in}/options.json
    {out}      the folder it writes
    {scratch}  a folder that is thrown away afterwards

which a runtime turns into host paths or container paths.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from harness.catalog.benchmarks import Benchmark
from harness.contract.digest import digest_json
from harness.contract.errors import UserError

# --- environments and resources --------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Environment:
    """Where a command finds its interpreter and its libraries."""

    name: str
    """Short; `--image NAME=IMAGE` replaces the image of the environment called NAME."""
    image: str | None = None
    """Folder under `docker/`. None: runs on this machine even with a container runtime."""
    build_arguments: tuple[tuple[str, str], ...] = ()
    """Name and value of each argument that the image is built with."""
    lock: str | None = None
    """Project-relative lock file. None: the interpreter that the harness itself runs on."""
    python: str | None = None
    """Python version for `lock`; None: the harness's own."""
    code: tuple[str, ...] = ()
    """Project-relative files and folders that the command may import; copied out, so that it sees nothing else."""
    beside: Environment | None = None
    """Another one whose programs the command may start: they are on its PATH. An image has them in it."""
    keyed: bool = False
    """Whether the environment's digest is part of its steps' keys."""
    inherits: bool = False
    """Whether the command sees the shell's whole environment and folder: a generator command of the user's own."""


HOST = Environment(name="host")
"""Small jobs of the harness's own; no container."""
CALLER = Environment(name="caller", inherits=True)
"""The user's shell, for `--generator 'python my_model.py'`."""


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What a step takes from the machine while it runs."""

    gpus: int = 0
    """At most this many; with fewer on the machine, it gets those."""
    memory_gb: float = 2.0
    """GiB. A container is ended beyond that."""
    advice: str = ""
    """A sentence for whoever sees it run out of memory: the setting that changes how much it has, or needs."""
    cpus: int = 1
    timeout_s: float | None = None
    network: bool = False


# --- where inputs come from ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class OutputOf:
    """What an earlier step wrote: its whole output folder, or one file or folder in it."""

    step: str
    path: str = ""


@dataclass(frozen=True)
class FileInput:
    """A file or folder on this machine, such as a checkpoint."""

    path: Path
    kind: str = ""
    """Its kind, where its digest is not that of its bytes: "sample", "requests", "score"."""


@dataclass(frozen=True)
class AssetInput:
    """An asset by name; seen as `{in}/<input name>/<file>`."""

    name: str


@dataclass(frozen=True)
class Document:
    """A JSON value, written to a file for the step: options, a specification."""

    value: Any


@dataclass(frozen=True)
class EmptyFolder:
    """An empty folder, for a command that requires one."""


Source = OutputOf | FileInput | AssetInput | Document | EmptyFolder


# --- steps and plans -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Step:
    """One command, kept under the digest of everything that determines its output."""

    name: str
    """Unique in a plan; letters, digits, '-', '_' and '.'."""
    kind: str
    """What the output is: "requests", "sample" and "score" are checked and digested as such; others as folders."""
    title: str = ""
    """One line for a person."""
    environment: Environment = HOST
    argv: tuple[str, ...]
    inputs: Mapping[str, Source] = field(default_factory=dict)
    """By name below `{in}`; a name may have folders in it: "samples", "options.json", "assets/adm-inception-graph"."""
    after: tuple[str, ...] = ()
    """Steps that go first although it reads nothing of theirs: it begins once each is finished, or is running and has
    passed its checks, which its first line of progress signals. Order only, so not part of the key."""
    identity: Mapping[str, Any] = field(default_factory=dict)
    """Whatever else determines the output: versions, digests of code."""
    resources: Resources = Resources()
    resumes: bool = False
    """Whether the command continues from what an interrupted attempt left in `{out}`."""
    produces: tuple[str, ...] = ()
    """Files that the output must contain to count as complete."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """Environment variables that it requires, each with what to set it to."""
    has_service: bool = False
    """Whether it runs a service of its own, which is told the user's settings like one on the network would be."""
    benchmark: str | None = None
    cwd: str | None = None
    """Where the command runs; None: in `{scratch}`."""
    version: int = 1
    """Raise it when the same command begins to mean something else."""

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the steps whose output it reads."""
        return tuple(dict.fromkeys(source.step for source in self.inputs.values() if isinstance(source, OutputOf)))

    @property
    def waits_for(self) -> tuple[str, ...]:
        """Names of the steps it waits for."""
        return (*self.needs, *self.after)

    @property
    def asset_names(self) -> tuple[str, ...]:
        """Names of the assets it reads."""
        return tuple(source.name for source in self.inputs.values() if isinstance(source, AssetInput))

    def key(self, input_digests: Mapping[str, str], environment_digest: str | None) -> str:
        """The key of its output: the same key means the same output.

        Args:
            input_digests: digest of every input, by its name.
            environment_digest: counted only where the environment says so.
        """
        if set(input_digests) != set(self.inputs):
            raise ValueError(f"{self.name}: digests of {sorted(input_digests)} for inputs {sorted(self.inputs)}")
        return digest_json(
            {
                "kind": self.kind,
                "argv": list(self.argv),
                "inputs": dict(input_digests),
                "identity": dict(self.identity),
                "environment": environment_digest if self.environment.keyed else None,
                "version": self.version,
            }
        )

    def describe(self) -> dict[str, Any]:
        """The step as JSON, for run.json and `harness plan --json`."""
        row = dataclasses.asdict(self)
        row["inputs"] = {name: describe_source(source) for name, source in self.inputs.items()}
        row["environment"] = self.environment.name
        return row


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Steps in an order in which they can run."""

    name: str
    """What the run folder is called, before the digest."""
    steps: tuple[Step, ...]
    generator: Mapping[str, Any] = field(default_factory=dict)
    """The generator, as shown in the report."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """What was asked for, for the record."""

    def __post_init__(self) -> None:
        known: set[str] = set()
        for step in self.steps:
            if step.name in known or not step.name or not set(step.name) <= _NAME_LETTERS:
                raise UserError(f"plan: the step name '{step.name}' occurs twice, or is not a folder name; rename it.")
            unknown = [name for name in step.waits_for if name not in known]
            if unknown:
                raise UserError(
                    f"plan: '{step.name}' waits for '{unknown[0]}', which is not an earlier step; reorder the plan."
                )
            known.add(step.name)

    def step(self, name: str) -> Step:
        """The step called `name`."""
        return next(step for step in self.steps if step.name == name)

    @property
    def assets(self) -> list[tuple[str, str]]:
        """(asset, step or benchmark that needs it) for every step."""
        return [(name, step.benchmark or step.name) for step in self.steps for name in step.asset_names]

    def digest(self, file_digests: Mapping[Path, str], other: Mapping[str, Any]) -> str:
        """Digest of everything that is known before the first step runs; names the run folder.

        Args:
            file_digests: digest of every FileInput, by path.
            other: what else is known: digests of environments and assets.
        """
        rows = []
        for step in self.steps:
            inputs = {name: _static_digest(source, file_digests) for name, source in step.inputs.items()}
            rows.append([step.name, step.kind, list(step.argv), inputs, dict(step.identity), step.version])
        return digest_json([rows, dict(other)])


_NAME_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")


def describe_source(source: Source) -> Any:
    """A source as JSON."""
    match source:
        case OutputOf(step, path):
            return {"output_of": step, "path": path}
        case FileInput(path, kind):
            return {"file": str(path), "kind": kind}
        case AssetInput(name):
            return {"asset": name}
        case Document(value):
            return {"document": value}
        case EmptyFolder():
            return {"empty": True}


def _static_digest(source: Source, file_digests: Mapping[Path, str]) -> Any:
    return file_digests[source.path] if isinstance(source, FileInput) else describe_source(source)


# --- generators -----------------------------------------------------------------------------------------------------


class Generator(Protocol):
    """Anything that can draw the images of a request set.

    It may also have `protocol`, a mapping: how its images are drawn where that differs from a benchmark's protocol, as
    published for a model. What the user asks for goes before it.
    """

    @property
    def name(self) -> str:
        """Short; begins the name of the run folder."""

    @property
    def draws_nothing(self) -> bool:
        """True for existing samples: no request set is needed."""

    @property
    def heeds(self) -> frozenset[str]:
        """Where nothing is drawn: which of "limit", "seed" and "protocol <name>" still affect its output."""

    def describe(self) -> dict[str, Any]:
        """The generator, for the record and the report."""

    def draw(self, benchmark: Benchmark, requests: OutputOf | None) -> tuple[list[Step], Source]:
        """The steps that draw what `benchmark` asks for, and where the sample set then is."""
