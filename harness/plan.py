"""What a run will do, as data: steps, and where each one's inputs come from.

`make_plan` is pure: it starts no engine, writes nothing, and is what `harness plan` prints and `harness run` executes.
A step is a command in an environment, with read-only inputs and one writable output folder. In its `argv` stand

    {python}   the interpreter of its environment
    {code}     the folder that holds the project's code for this environment
    {in}       the folder of its inputs, by name: {in}/samples, {in}/assets, {in}/options.json
    {out}      the folder it writes
    {scratch}  a folder that is thrown away afterwards

which a runtime turns into host paths or container paths.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.contract.digest import digest_json
from harness.contract.errors import UserError
from harness.contract.requests import Protocol

if TYPE_CHECKING:
    from harness.catalog import Benchmark, Catalog, StageSpec
    from harness.generators import Generator

SCORER_CODE = ("harness/__init__.py", "harness/contract", "harness/metrics")
"""The part of the harness that scorers import."""


# --- environments and resources --------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Environment:
    """Where a command finds its interpreter and its libraries."""

    name: str
    image: str | None = None
    """Folder under `docker/`. None: runs on this machine even with a container runtime."""
    lock: str | None = None
    """Project-relative lock file. None: the interpreter that the harness itself runs on."""
    python: str | None = None
    """Python version for `lock`; None: the harness's own."""
    code: tuple[str, ...] = ()
    """Project-relative files and folders that the command may import; copied out, so that nothing else is seen."""
    keyed: bool = False
    """Whether the environment's digest is part of its steps' keys."""
    inherits: bool = False
    """Whether the command sees the shell's whole environment and folder: a generator command of the user's own."""


HOST = Environment(name="host")
"""Small jobs of the harness's own; no container."""
CORE = Environment(name="core", image="core")
"""Where gear trains and samples: the image `core`, or the very environment the harness runs in."""
CALLER = Environment(name="caller", inherits=True)
"""The user's shell, for `--generator 'python my_model.py'`."""


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What a step takes from the machine while it runs."""

    gpus: int = 0
    """At most this many; with fewer there, it gets what there is."""
    memory_gb: float = 2.0
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
    """What is in it, where its digest follows other rules than its bytes: "sample", "requests", "score"."""


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
    """A folder with nothing in it, where a command insists on one."""


Source = OutputOf | FileInput | AssetInput | Document | EmptyFolder


# --- steps and plans -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Step:
    """One command, kept under the digest of everything that determines its output."""

    name: str
    """Unique in a plan; letters, digits, '-', '_' and '.'."""
    kind: str
    """What the output is: "requests", "sample" and "score" are checked and digested as such; else it is any folder."""
    title: str = ""
    """One line for a person."""
    environment: Environment = HOST
    argv: tuple[str, ...]
    inputs: Mapping[str, Source] = field(default_factory=dict)
    """By name below `{in}`; a name may have folders in it: "samples", "options.json", "assets/adm-inception-graph"."""
    after: tuple[str, ...] = ()
    """Steps that it reads nothing of and lets go first: it begins once each is finished, or is at work with its checks
    behind it, which the first line of progress says. Order only, so no part of the key."""
    identity: Mapping[str, Any] = field(default_factory=dict)
    """Whatever else determines the output: versions, digests of code."""
    resources: Resources = Resources()
    resumes: bool = False
    """Whether the command continues from what an interrupted attempt left in `{out}`."""
    produces: tuple[str, ...] = ()
    """Files that must be in the output before it is believed."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """Environment variables that it cannot do without, each with what to set it to."""
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
        """Names of the steps without which it does not begin."""
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
    """Who draws: shown in the report."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """What was asked for, for the record."""

    def __post_init__(self) -> None:
        known: set[str] = set()
        for step in self.steps:
            if step.name in known or not step.name or not set(step.name) <= _NAME_LETTERS:
                raise UserError(f"plan: the step name '{step.name}' stands twice, or has letters a folder cannot have.")
            unknown = [name for name in step.waits_for if name not in known]
            if unknown:
                raise UserError(
                    f"plan: '{step.name}' waits for '{unknown[0]}', which is no earlier step; reorder the plan."
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


# --- making a plan ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the user asked for."""

    benchmarks: tuple[str, ...] = ()
    """By name; together with the suite's."""
    suite: str | None = None
    generator: Generator
    limit: int | None = None
    """The first so many requests of each benchmark; a cheap look, never a published number."""
    run_seed: int = 0
    protocol: Mapping[str, Any] = field(default_factory=dict)
    """Changes to the protocol of every benchmark, e.g. {"cfg_scale": 1.75}."""
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Scorer options by benchmark."""


def make_plan(request: Request, catalog: Catalog) -> Plan:
    """The steps that answer a request: what to draw, drawing it, scoring it, for each benchmark.

    Raises:
        UserError: an unknown benchmark, suite or option, or a generator that cannot draw what a benchmark asks for.
    """
    benchmarks = _chosen(request, catalog)
    _check_options(request.options, benchmarks)
    _refuse_unused(request)
    steps: list[Step] = []
    for benchmark in benchmarks:
        drawing, samples = _drawing(benchmark, request)
        known = {step.name for step in steps}
        steps += [step for step in drawing if step.name not in known]
        steps += _score_steps(benchmark, samples, request.options.get(benchmark.id, {}))
    name = "-".join([request.generator.name, request.suite or "-".join(b.id for b in benchmarks)])
    return Plan(
        name=name,
        steps=tuple(steps),
        generator=request.generator.describe(),
        options={
            "benchmarks": [benchmark.id for benchmark in benchmarks],
            "suite": request.suite,
            "limit": request.limit,
            "run_seed": request.run_seed,
            "protocol": dict(request.protocol),
            "options": {name: dict(values) for name, values in request.options.items()},
        },
    )


def scorer_environment(benchmark: Benchmark) -> Environment:
    """The environment of a benchmark's scorer: its image, or its lock file and the code it may import."""
    scorer = benchmark.scorer
    owner = scorer.of or benchmark.id
    folder = f"benchmarks/{owner}"
    return Environment(
        name=scorer.image if scorer.lock is None else owner,
        image=scorer.image,
        lock=None if scorer.lock is None else f"{folder}/{scorer.lock}",
        python=scorer.python,
        code=(folder, *scorer.shares, *SCORER_CODE),
        keyed=True,
    )


def _chosen(request: Request, catalog: Catalog) -> list[Benchmark]:
    named = [catalog.benchmark(name) for name in request.benchmarks]
    of_suite = catalog.suite(request.suite) if request.suite else []
    if request.suite and named:  # both: the suite narrowed down
        outside = [benchmark.id for benchmark in named if benchmark not in of_suite]
        if outside:
            raise UserError(f"'{outside[0]}' is not in the suite '{request.suite}'; leave out --suite or --benchmark.")
    chosen = named or of_suite
    if not chosen:
        raise UserError("Nothing to run; give --suite NAME or --benchmark NAME. List them: harness ls")
    return list({benchmark.id: benchmark for benchmark in chosen}.values())


def _check_options(options: Mapping[str, Mapping[str, Any]], benchmarks: Sequence[Benchmark]) -> None:
    known = {benchmark.id: benchmark for benchmark in benchmarks}
    for name, values in options.items():
        if name not in known:
            raise UserError(f"--set {name}.*: '{name}' is not part of this run ({', '.join(known)}).")
        unknown = set(values) - set(known[name].options)
        if unknown:
            raise UserError(
                f"--set {name}.{sorted(unknown)[0]}: {name} has no such option; "
                f"it has: {', '.join(known[name].options) or 'none'}."
            )


def _refuse_unused(request: Request) -> None:
    """What nobody goes by must not stand in the record as if it had decided the samples."""
    given = {
        "limit": request.limit is not None,
        "seed": request.run_seed != 0,
        **{f"protocol {name}": True for name in request.protocol},
    }
    unused = [f"--{name}" for name, is_given in given.items() if is_given and name not in request.generator.heeds]
    if request.generator.draws_nothing and unused:
        raise UserError(f"Nothing is drawn here; leave out {', '.join(unused)}, which would change nothing.")


def _drawing(benchmark: Benchmark, request: Request) -> tuple[list[Step], Source]:
    generator = request.generator
    benchmark = dataclasses.replace(benchmark, protocol=_protocol(benchmark, request.protocol))
    if benchmark.form == "pairs" and not generator.draws_nothing:
        raise UserError(f"{benchmark.id} judges tokenizers; give --tokenizer SOURCE, or --samples with pairs.")
    if generator.draws_nothing:
        return generator.draw(benchmark, None)
    requests = _requests_step(benchmark, request)
    steps, samples = generator.draw(benchmark, OutputOf(requests.name))
    return [requests, *steps], samples


def _requests_step(benchmark: Benchmark, request: Request) -> Step:
    """What to draw. `requests.kind: script` runs the benchmark's own script, which reads the same specification."""
    options = request.options.get(benchmark.id, {})
    spec = {
        "benchmark": benchmark.id,
        "version": benchmark.version,
        "protocol": dataclasses.asdict(benchmark.protocol),
        # An option of both, such as how many prompts of a pool: the scorer must find what was asked for.
        "requests": {name: options.get(name, value) for name, value in benchmark.requests.items()},
        "limit": request.limit,
        "run_seed": request.run_seed,
    }
    is_script = benchmark.requests.get("kind") == "script"
    folder = f"benchmarks/{benchmark.id}"
    command = (f"{{code}}/{folder}/{benchmark.requests['script']}",) if is_script else ("-m", "harness.make_requests")
    inputs: dict[str, Source] = {"spec.json": Document(spec)}
    inputs |= _asset_inputs(_texts(benchmark.requests.get("assets", [])))
    return Step(
        name=f"requests-{benchmark.id}",
        kind="requests",
        title=f"{benchmark.id}: what to draw",
        environment=_requests_environment(benchmark) if is_script else HOST,
        argv=("{python}", *command, "--spec", "{in}/spec.json", "--assets", "{in}/assets", "--out", "{out}"),
        inputs=inputs,
        benchmark=benchmark.id,
    )


def _requests_environment(benchmark: Benchmark) -> Environment:
    """Where a script for requests runs: beside the harness, or with the scorer's libraries where it says so."""
    if benchmark.requests.get("environment") == "scorer":
        return scorer_environment(benchmark)
    return Environment(name="host", code=(f"benchmarks/{benchmark.id}", *SCORER_CODE), keyed=True)


def _protocol(benchmark: Benchmark, changes: Mapping[str, Any]) -> Protocol:
    unknown = set(changes) - {field.name for field in dataclasses.fields(benchmark.protocol)}
    if unknown:
        known = ", ".join(field.name for field in dataclasses.fields(benchmark.protocol))
        raise UserError(f"--protocol {sorted(unknown)[0]}: there is no such setting; there are: {known}.")
    return dataclasses.replace(benchmark.protocol, **changes)


def _score_steps(benchmark: Benchmark, samples: Source, changes: Mapping[str, Any]) -> list[Step]:
    """The feature stages of the scorer, if it has any, and the score itself, which is given what they wrote."""
    options = {**benchmark.options, **changes}
    stages = _stage_steps(benchmark, samples, options)
    inputs: dict[str, Source] = {"samples": samples, "options.json": Document(options)}
    inputs |= _asset_inputs(benchmark.assets)
    inputs |= {f"features/{name}": OutputOf(step.name) for name, step in stages.items()}
    flags = ("--features", "{in}/features") if stages else ()
    score = Step(
        name=f"score-{benchmark.id}",
        kind="score",
        title=f"{benchmark.id}: score",
        environment=scorer_environment(benchmark),
        argv=(*_scorer_command(benchmark), "--samples", "{in}/samples", *flags),
        inputs=inputs,
        identity={"benchmark": benchmark.id, "benchmark_version": benchmark.version},
        resources=_scorer_resources(benchmark),
        resumes=benchmark.scorer.resumes,
        variables=benchmark.scorer.variables,
        benchmark=benchmark.id,
    )
    return [*stages.values(), score]


def _stage_steps(benchmark: Benchmark, samples: Source, options: Mapping[str, Any]) -> dict[str, Step]:
    """The steps of the feature stages, by name of the stage.

    Work on the reference takes minutes and needs no samples, so it could begin at once; it comes after the stages that
    read the samples all the same, which begin with the checks: bad samples are refused before it, not after it.
    """
    steps = {stage.name: _stage_step(benchmark, stage, samples, options) for stage in benchmark.scorer.stages}
    reading = {name: step for name, step in steps.items() if "samples" in step.inputs}
    after = tuple(step.name for step in reading.values())
    return reading | {
        name: dataclasses.replace(step, after=after) for name, step in steps.items() if name not in reading
    }


def _stage_step(benchmark: Benchmark, stage: StageSpec, samples: Source, options: Mapping[str, Any]) -> Step:
    """Features that depend on less than the score: kept under that, so that the next score finds them."""
    inputs: dict[str, Source] = {"options.json": Document({name: options[name] for name in stage.options})}
    inputs |= _asset_inputs(stage.assets)
    if stage.samples:
        inputs["samples"] = samples
    flags = ("--samples", "{in}/samples") if stage.samples else ()
    return Step(
        name=f"features-{benchmark.id}-{stage.name}",
        kind="features",
        title=f"{benchmark.id}: features of the {stage.name}",
        environment=scorer_environment(benchmark),
        argv=(*_scorer_command(benchmark), *flags, "--stage", stage.name),
        inputs=inputs,
        resources=_scorer_resources(benchmark),
        produces=("features.json",),
        benchmark=benchmark.id,
    )


def _scorer_command(benchmark: Benchmark) -> tuple[str, ...]:
    script = f"{{code}}/benchmarks/{benchmark.scorer.of or benchmark.id}/{benchmark.scorer.script}"
    return ("{python}", script, "--assets", "{in}/assets", "--out", "{out}", "--options", "{in}/options.json")


def _scorer_resources(benchmark: Benchmark) -> Resources:
    scorer = benchmark.scorer
    return Resources(
        gpus=scorer.gpus,
        memory_gb=scorer.memory_gb,
        cpus=scorer.cpus,
        timeout_s=scorer.timeout_s,
        network=scorer.network,
    )


def _asset_inputs(names: Iterable[str]) -> dict[str, Source]:
    inputs: dict[str, Source] = {f"assets/{name}": AssetInput(name) for name in names}
    return inputs or {"assets": EmptyFolder()}


def _texts(values: Iterable[Any]) -> list[str]:
    return [str(value) for value in values]
