"""Turns what the user asked for into a plan: for each benchmark what to draw, drawing it, scoring it.

`make_plan` is pure: it starts no engine, writes nothing, and is what `harness plan` prints and `harness run` executes.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.catalog.benchmarks import Benchmark, Catalog, FeatureStage, ScorerSpec
from harness.contract.errors import UserError
from harness.contract.requests import SamplingProtocol
from harness.planning.services import ADDRESS_VARIABLE, served_model, with_model, with_service
from harness.planning.steps import (
    HOST,
    AssetInput,
    Document,
    EmptyFolder,
    Environment,
    Generator,
    OutputOf,
    Plan,
    Resources,
    Source,
    Step,
)

SCORER_CODE = ("harness/__init__.py", "harness/contract", "harness/scoring", "harness/metrics")
"""The part of the harness that scorers import."""
SCORER_IMAGE = "scorer"
"""Folder under `docker/` of the image for every scorer that names none of its own."""


@dataclass(frozen=True, kw_only=True)
class RunSpec:
    """What the user asked for."""

    benchmarks: tuple[str, ...] = ()
    """By name; with a suite, only these benchmarks of it."""
    suite: str | None = None
    generator: Generator
    limit: int | None = None
    """Only the first N requests of each benchmark: a quick test, never a published number."""
    run_seed: int = 0
    protocol: Mapping[str, Any] = field(default_factory=dict)
    """Changes to the protocol of every benchmark, e.g. {"cfg_scale": 1.75}."""
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Scorer options by benchmark."""
    judge: str | Path | None = None
    """The model that is served to scorers which ask one: a folder, or a repository; None: the user serves it."""
    service_program: str | None = None
    """The user's own program that serves."""
    only: str | None = None
    """"draw": nothing is scored. "score": nothing is drawn, so samples must be given."""


def make_plan(spec: RunSpec, catalog: Catalog) -> Plan:
    """The steps that answer a request: what to draw, drawing it, scoring it, for each benchmark.

    Raises:
        UserError: an unknown benchmark, suite or option, or a generator that cannot draw what a benchmark asks for.
    """
    benchmarks = _chosen(spec, catalog)
    _check_options(spec.options, benchmarks)
    _refuse_unused(spec)
    steps: list[Step] = []
    for chosen in benchmarks:
        benchmark = chosen.for_options(chosen.read_options(spec.options.get(chosen.id, {})).as_mapping())
        drawing, samples = _drawing(benchmark, spec)
        known = {step.name for step in steps}
        steps += [step for step in drawing if step.name not in known]
        steps += [] if spec.only == "draw" else _score_steps(benchmark, samples, spec)
    name = "-".join([spec.generator.name, spec.suite or "-".join(b.id for b in benchmarks)])
    return Plan(
        name=name,
        steps=tuple(steps),
        generator=spec.generator.describe(),
        options={
            "benchmarks": [benchmark.id for benchmark in benchmarks],
            "suite": spec.suite,
            "limit": spec.limit,
            "run_seed": spec.run_seed,
            "protocol": dict(spec.protocol),
            **({"judge": str(spec.judge)} if spec.judge else {}),
            **({"only": spec.only} if spec.only else {}),
            "options": {name: dict(values) for name, values in spec.options.items()},
        },
    )


def scorer_environment(benchmark: Benchmark) -> Environment:
    """The environment of a benchmark's scorer: its image, or its lock file and the code it may import."""
    scorer = benchmark.scorer
    owner = scorer.of or benchmark.id
    folder = f"benchmarks/{owner}"
    return Environment(
        name=f"{owner}-{benchmark.variant}" if benchmark.variant else owner,
        image=scorer.image or SCORER_IMAGE,
        build_arguments=() if scorer.image else _build_arguments(owner, scorer),
        lock=None if scorer.lock is None else f"{folder}/{scorer.lock}",
        python=scorer.python,
        code=(folder, *SCORER_CODE),
        keyed=True,
    )


def _build_arguments(owner: str, scorer: ScorerSpec) -> tuple[tuple[str, str], ...]:
    """The arguments of `docker/scorer/Dockerfile`; what is not given has its default there."""
    given = {"BENCHMARK": owner, "LOCK": scorer.lock, "PYTHON": scorer.python}
    return tuple((name, value) for name, value in given.items() if value is not None)


def _chosen(spec: RunSpec, catalog: Catalog) -> list[Benchmark]:
    named = [catalog.benchmark(name) for name in spec.benchmarks]
    of_suite = catalog.suite(spec.suite) if spec.suite else []
    if spec.suite and named:  # with both, the names narrow the suite down
        outside = [benchmark.id for benchmark in named if benchmark not in of_suite]
        if outside:
            raise UserError(f"'{outside[0]}' is not in the suite '{spec.suite}'; leave out --suite or --benchmark.")
    chosen = named or of_suite
    if not chosen:
        raise UserError("Nothing to run; give --suite NAME or --benchmark NAME. List them: harness ls")
    return list({benchmark.id: benchmark for benchmark in chosen}.values())


def _check_options(options: Mapping[str, Mapping[str, Any]], benchmarks: Sequence[Benchmark]) -> None:
    known = {benchmark.id: benchmark for benchmark in benchmarks}
    for name, values in options.items():
        if name not in known:
            raise UserError(f"--set {name}.*: '{name}' is not part of this run ({', '.join(known)}).")
        known[name].read_options(values)


def _refuse_unused(spec: RunSpec) -> None:
    """Refuse settings that have no effect: in the record they would seem to have shaped the samples."""
    given = {
        "limit": spec.limit is not None,
        "seed": spec.run_seed != 0,
        **{f"protocol {name}": True for name in spec.protocol},
    }
    unused = [f"--{name}" for name, is_given in given.items() if is_given and name not in spec.generator.heeds]
    if spec.generator.draws_nothing and unused:
        raise UserError(f"Nothing is drawn here; leave out {', '.join(unused)}, which would have no effect.")
    _check_only(spec)


def _check_only(spec: RunSpec) -> None:
    if spec.only == "score" and not spec.generator.draws_nothing:
        raise UserError("--only score draws nothing; give --samples DIR: what a run with --only draw wrote.")
    if spec.only == "draw" and spec.generator.draws_nothing:
        raise UserError("--only draw: samples that exist are not drawn; leave out --only draw, or --samples.")
    if spec.only == "draw" and (spec.options or spec.judge):
        raise UserError("--only draw scores nothing; give --set and --judge where the samples are scored.")


def _drawing(benchmark: Benchmark, spec: RunSpec) -> tuple[list[Step], Source]:
    generator = spec.generator
    changes = {**getattr(generator, "protocol", {}), **spec.protocol}
    benchmark = dataclasses.replace(benchmark, protocol=_protocol(benchmark, changes))
    if benchmark.form == "pairs" and not generator.draws_nothing:
        raise UserError(
            f"{benchmark.id} scores pairs of images and their reconstructions; give --samples DIR with such pairs, or "
            "the option of a generator that reconstructs (harness run --help)."
        )
    if generator.draws_nothing:
        return generator.draw(benchmark, None)
    requests = _requests_step(benchmark, spec)
    steps, samples = generator.draw(benchmark, OutputOf(requests.name))
    return [requests, *steps], samples


def _requests_step(benchmark: Benchmark, spec: RunSpec) -> Step:
    """What to draw. `requests.kind: script` runs the benchmark's own script, which reads the same specification."""
    options = benchmark.read_options(spec.options.get(benchmark.id, {})).as_mapping()
    wanted = dict(benchmark.requests)
    document = {
        "benchmark": benchmark.id,
        "version": benchmark.version,
        "protocol": dataclasses.asdict(benchmark.protocol),
        # Options shared with the scorer, such as how many prompts of a pool: both must use the same value.
        "requests": {name: options[name] for name in wanted.pop("options", ())} | wanted,
        "limit": spec.limit,
        "run_seed": spec.run_seed,
    }
    is_script = benchmark.requests.get("kind") == "script"
    folder = f"benchmarks/{benchmark.id}"
    own = f"{{code}}/{folder}/{benchmark.requests.get('script')}"
    command = (own,) if is_script else ("-m", "harness.scoring.make_requests")
    inputs: dict[str, Source] = {"spec.json": Document(document)}
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
    """Where a request script runs: in the harness's environment, or in the scorer's where benchmark.yaml says so."""
    if benchmark.requests.get("environment") == "scorer":
        return scorer_environment(benchmark)
    return Environment(name="host", code=(f"benchmarks/{benchmark.id}", *SCORER_CODE), keyed=True)


def _protocol(benchmark: Benchmark, changes: Mapping[str, Any]) -> SamplingProtocol:
    unknown = set(changes) - {field.name for field in dataclasses.fields(benchmark.protocol)}
    if unknown:
        known = ", ".join(field.name for field in dataclasses.fields(benchmark.protocol))
        raise UserError(f"--protocol {sorted(unknown)[0]}: there is no such setting; there are: {known}.")
    return dataclasses.replace(benchmark.protocol, **changes)


def _score_steps(benchmark: Benchmark, samples: Source, spec: RunSpec) -> list[Step]:
    """The feature stages of the scorer, if it has any, and the score itself, which is given what they wrote."""
    service = benchmark.scorer.service
    changes = spec.options.get(benchmark.id, {})
    served = None if service is None or spec.judge is None else served_model(spec.judge)
    if service and served:
        changes = with_model(changes, service, served)
    options = benchmark.read_options(changes).as_mapping()
    stages = _stage_steps(benchmark, samples, options)
    inputs: dict[str, Source] = {"samples": samples, "options.json": Document(options)}
    inputs |= _asset_inputs(benchmark.scorer_assets(options))
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
        variables=required_variables(benchmark.scorer, judge=served),
        benchmark=benchmark.id,
    )
    if served:
        score = with_service(score, benchmark, served, program=spec.service_program)
    return [*stages.values(), score]


def required_variables(scorer: ScorerSpec, *, judge: object | None) -> dict[str, str]:
    """Environment variables that a score needs, each with what to set it to.

    judge: the model that the harness serves, in place of a service at an address; None: it serves none.
    """
    if scorer.service is None:
        return dict(scorer.variables)
    other = " Or let the harness run it: --judge DIR, or its name on the hub."
    needed = {name: use for name, use in scorer.variables.items() if judge is None or name != ADDRESS_VARIABLE}
    return {name: use + (other if name == ADDRESS_VARIABLE else "") for name, use in needed.items()}


def _stage_steps(benchmark: Benchmark, samples: Source, options: Mapping[str, Any]) -> dict[str, Step]:
    """The steps of the feature stages, by name of the stage.

    Work on the reference takes minutes and needs no samples, so it could begin at once. It still comes after the stages
    that read the samples, since those check them first: bad samples are refused before that work, not after it.
    """
    found: dict[str, Step] = {}
    after: tuple[str, ...] = ()
    for group in _in_order(benchmark.scorer.stages):
        steps = {stage.name: _stage_step(benchmark, stage, samples, options) for stage in group}
        found |= {name: dataclasses.replace(step, after=after) for name, step in steps.items()}
        after = tuple(step.name for step in steps.values()) or after
    return found


def _in_order(stages: Iterable[FeatureStage]) -> Iterator[list[FeatureStage]]:
    """Those that come first, those that read the samples, the rest."""
    ranked = sorted(stages, key=_rank)
    for _, group in itertools.groupby(ranked, key=_rank):
        yield list(group)


def _rank(stage: FeatureStage) -> int:
    return 0 if stage.first else 1 if stage.samples else 2


def _stage_step(benchmark: Benchmark, stage: FeatureStage, samples: Source, options: Mapping[str, Any]) -> Step:
    """Features that depend on fewer inputs than the score: stored under those, so that the next score reuses them."""
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
        advice=f"Raise scorer.{_memory_field(benchmark)} in {benchmark.folder / 'benchmark.yaml'}.",
        cpus=scorer.cpus,
        timeout_s=scorer.timeout_s,
        network=scorer.network,
    )


def _memory_field(benchmark: Benchmark) -> str:
    """Where benchmark.yaml says how much memory the scorer has, below `scorer`."""
    variant = benchmark.scorer.variants.get(benchmark.variant)
    return f"variants.{benchmark.variant}.memory_gb" if variant and variant.memory_gb else "memory_gb"


def _asset_inputs(names: Iterable[str]) -> dict[str, Source]:
    inputs: dict[str, Source] = {f"assets/{name}": AssetInput(name) for name in names}
    return inputs or {"assets": EmptyFolder()}


def _texts(values: Iterable[Any]) -> list[str]:
    return [str(value) for value in values]
