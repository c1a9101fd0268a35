"""The harness from Python: plan a run, run it, score samples. The command line is a thin layer on these functions.

    import harness

    record = harness.score("adm", "samples.npz")          # a ScoreRecord
    gfid = record.metric("gfid")
    print(gfid.value, gfid.n, gfid.interval, record.digests["samples"])

    run = harness.run("geneval", "dpg", generator="python my_model.py", progress=True)
    print(run.scores["geneval"].metric("geneval").value, run.folder / "report.html")

What the command line prints as an error is raised here: `harness.UserError` and its kinds, each with an `exit_code`.
Finished work is found by the digest of everything that determines it, as on the command line: repeating a call returns
at once, and repeating an interrupted one continues it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from harness.catalog.benchmarks import Catalog
from harness.catalog.project import Project, find_project, home_dir
from harness.contract.errors import (
    EXIT_OK,
    EXIT_PARTLY_SCORED,
    BadSamples,
    EnvironmentFailure,
    MissingAsset,
    UserError,
    pick,
)
from harness.contract.record import ScoreRecord
from harness.planning.check import Comparison, check_plan, compare_with_expected, full_check_plan
from harness.planning.generators import DrawContext, choose_generator, existing_samples
from harness.planning.make import RunSpec, make_plan, scorer_environment
from harness.planning.services import PROGRAM_VARIABLE, named_model, service_environment
from harness.planning.steps import Environment, Generator, Plan
from harness.running.execute import run_plan
from harness.running.failures import RunFailed, exit_code, failures
from harness.running.setting import Reporter, Setting, asset_store, make_setting
from harness.store.digests import DigestMemo
from harness.store.run_record import Run, find_run, find_runs

__all__ = [
    "BadSamples",
    "EnvironmentFailure",
    "GoldCheck",
    "MissingAsset",
    "Plan",
    "Run",
    "RunFailed",
    "ScoreRecord",
    "UserError",
    "check",
    "list_runs",
    "load_run",
    "plan",
    "prepare",
    "run",
    "score",
]

Options = Mapping[str, Any]
"""Scorer options of one benchmark, by name: {"batch_size": 32}."""


def plan(
    *benchmarks: str,
    suite: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    gpus: int = 1,
    memory_gb: float | None = None,
    protocol: Mapping[str, Any] | None = None,
    options: Mapping[str, Options] | None = None,
    assets: Mapping[str, str | Path] | None = None,
    judge: str | Path | None = None,
    only: Literal["draw", "score"] | None = None,
    **drawing: Any,
) -> Plan:
    """What `run` with the same arguments would do, as data: `plan.steps`. Nothing runs and nothing is written.

        plan = harness.plan("adm", samples="samples.npz")
        print([step.name for step in plan.steps])

    Args:
        benchmarks: benchmarks by id.
        suite: all benchmarks of a suite, in place of `benchmarks`.
        limit: only the first N images of each benchmark; such numbers are not comparable with published ones.
        seed: different seeds draw different images.
        gpus: GPUs to draw with.
        memory_gb: memory of a step that draws, in GiB; None: what the generator says it needs.
        protocol: changes to how images are drawn, such as {"cfg_scale": 1.75}.
        options: changes to scorer options by benchmark, such as {"adm": {"batch_size": 32}}.
        assets: asset name -> a file or folder to use instead of the fetched one; a model among them is looked at.
        judge: the model that is served to a scorer which asks one: a folder, or a repository in the hub's cache; None:
            $HARNESS_JUDGE_MODEL, or the server at $HARNESS_JUDGE_URL.
        only: "draw" leaves the samples to be scored elsewhere; "score" takes samples that are drawn.
        drawing: the generator; exactly one of generator="COMMAND" (any program, called as COMMAND --requests DIR
            --out DIR), samples=PATH (existing samples), or an option of an installed package (`harness run --help`).
    Raises:
        UserError: an unknown benchmark, suite, option or generator, or a generator that cannot draw what is asked for.
    """
    project = find_project()
    catalog = Catalog.load(project)
    how: dict[str, Any] = {"gpus": gpus, "memory_gb": memory_gb, "limit": limit, "options": options, "assets": assets}
    spec = RunSpec(
        benchmarks=benchmarks,
        suite=suite,
        generator=generator(project, catalog, **how, **drawing),
        limit=limit,
        run_seed=seed,
        protocol=protocol or {},
        options=options or {},
        judge=named_model(judge) if only != "draw" else judge,
        service_program=os.environ.get(PROGRAM_VARIABLE),
        only=only,
    )
    return _with_judge(judge, make_plan(spec, catalog))


def _with_judge(judge: str | Path | None, plan: Plan) -> Plan:
    """The plan, unless a judge was named for nothing."""
    if judge is not None and not any(step.has_service for step in plan.steps):
        raise UserError(f"--judge {judge}: nothing in this run asks a judge that can be served; leave it out.")
    return plan


def generator(
    project: Project,
    catalog: Catalog,
    *,
    gpus: int = 1,
    memory_gb: float | None = None,
    limit: int | None = None,
    options: Mapping[str, Options] | None = None,
    assets: Mapping[str, str | Path] | None = None,
    **drawing: Any,
) -> Generator:
    """The generator that `drawing` names, looked at as far as it can be without a benchmark; arguments as for `plan`.

    Raises:
        UserError: there is none, or its files do not belong together.
    """
    memo = DigestMemo(home_dir() / "digests")
    store = asset_store(catalog, memo, assets)
    context = DrawContext(
        project=project,
        gpus=gpus,
        memory_gb=memory_gb,
        limit=limit,
        options=options or {},
        digest=memo.file,
        asset=store.path_if_here,
    )
    return choose_generator(drawing, context)


def run(
    *benchmarks: str,
    suite: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    gpus: int = 1,
    memory_gb: float | None = None,
    protocol: Mapping[str, Any] | None = None,
    options: Mapping[str, Options] | None = None,
    judge: str | Path | None = None,
    only: Literal["draw", "score"] | None = None,
    runtime: str = "venv",
    scheduler: str = "here",
    runs_dir: str | Path = "runs",
    assets: Mapping[str, str | Path] | None = None,
    name: str | None = None,
    force: bool = False,
    progress: bool = False,
    **drawing: Any,
) -> Run:
    """Draw the images of benchmarks, score them, and keep record and provenance in a run folder.

        run = harness.run("adm", samples="samples.npz", progress=True)
        print(run.scores["adm"].metric("gfid").value)

    Args:
        benchmarks, suite, limit, seed, gpus, memory_gb, protocol, options, judge, only, drawing: as for `plan`.
        runtime: how steps are isolated: "venv", "docker", "podman", or what an installed package adds.
        scheduler: where steps run: "here", or what an installed package adds.
        runs_dir: where run folders and finished work go.
        assets: asset name -> a file or folder to use instead of the fetched one.
        name: of the run folder; by default the plan's name and the beginning of its digest.
        force: compute finished steps again.
        progress: show what happens on stderr, with bars on a terminal.
    Raises:
        MissingAsset: a file from outside is not here; before anything runs.
        UserError: as for `plan`.
        RunFailed: a step failed, or the run was interrupted (also a UserError).
    """
    planned = plan(
        *benchmarks,
        suite=suite,
        limit=limit,
        seed=seed,
        gpus=gpus,
        memory_gb=memory_gb,
        protocol=protocol,
        options=options,
        assets=assets,
        judge=judge,
        only=only,
        **drawing,
    )
    setting = _setting(runtime=runtime, scheduler=scheduler, runs_dir=Path(runs_dir), assets=assets)
    return _finished(execute(planned, setting, force=force, name=name, progress=progress))


def score(
    benchmark: str,
    samples: str | Path,
    *,
    layout: str | None = None,
    options: Options | None = None,
    judge: str | Path | None = None,
    runtime: str = "venv",
    scheduler: str = "here",
    runs_dir: str | Path = "runs",
    assets: Mapping[str, str | Path] | None = None,
    name: str | None = None,
    force: bool = False,
    progress: bool = False,
) -> ScoreRecord:
    """Score existing samples.

        record = harness.score("adm", "samples.npz", options={"batch_size": 32})
        gfid = record.metric("gfid")
        print(gfid.value, gfid.unit, gfid.n, gfid.interval, gfid.higher_is_better)
        print(record.digests, record.environment, record.unscored, record.notes)

    Args:
        benchmark: by id, such as "adm".
        samples: a sample set, an NPZ with `arr_0` (uint8, N x H x W x 3), or a folder of images.
        layout: the folder's layout by name, when it was made for the benchmark's original scorer.
        options: changes to the scorer's options.
        judge: as for `plan`.
        runtime, scheduler, runs_dir, assets, name, force, progress: as for `run`.
    Returns:
        The score: metrics with value, unit, n and (where one is known) a 95 % interval; digests of everything that went
        in; items that could not be scored, with reasons.
    Raises:
        BadSamples: the samples are not what the benchmark needs.
        MissingAsset: a file from outside is not here; before anything runs.
        RunFailed: the scorer failed.
        UserError: an unknown benchmark, option or layout.
    """
    project = find_project()
    catalog = Catalog.load(project)
    planned = plan_of_samples(catalog, benchmark, Path(samples), layout=layout, options=options, judge=judge)
    setting = make_setting(
        project, catalog, runtime=runtime, scheduler=scheduler, runs_dir=Path(runs_dir), assets=assets
    )
    return _finished(execute(planned, setting, force=force, name=name, progress=progress)).scores[benchmark]


@dataclass(frozen=True, kw_only=True)
class GoldCheck:
    """A scorer's result for a case with a known answer."""

    run: Run
    comparisons: list[Comparison]
    """Metric by metric; empty when the scorer did not finish."""

    @property
    def passed(self) -> bool:
        """Whether the scorer finished and every metric is within the tolerance of its known value."""
        return bool(self.comparisons) and all(row.passed for row in self.comparisons)


def check(
    benchmark: str,
    *,
    full: bool = False,
    options: Options | None = None,
    assets: Mapping[str, str | Path] | None = None,
    progress: bool | Reporter = False,
    command: Sequence[str] | None = None,
    **setting: Any,
) -> GoldCheck:
    """Run a scorer on its small shipped case, in its own environment, and compare with the known answer.

        assert harness.check("adm").passed

    Args:
        benchmark: by id.
        full: the public batch with published scores, with the real assets; few benchmarks have one.
        options: changes to the scorer's options, by name; the known answer must hold for them, too.
        assets: asset name -> a file or folder to use instead of the shipped or fetched one.
        progress: whether to show what happens on stderr, or a reporter.
        command: for the record; by default the command line of this process.
        setting: runtime, scheduler, runs_dir, images, base_image: as for `harness.running.setting.make_setting`.
    Raises:
        UserError: the benchmark has no such case.
        MissingAsset: with `full`, a file from outside is not here.
    """
    project = find_project()
    catalog = Catalog.load(project)
    chosen = catalog.benchmark(benchmark)
    if full:
        made = make_setting(project, catalog, assets=assets, **setting)
        planned = full_check_plan(chosen, made.assets, options)
    else:
        planned, shipped = check_plan(chosen, options)
        made = make_setting(project, catalog, assets={**shipped, **(assets or {})}, **setting)
    done = execute(planned, made, force=not full, progress=progress, command=command)
    if exit_code(done.record) not in (EXIT_OK, EXIT_PARTLY_SCORED):
        return GoldCheck(run=done, comparisons=[])
    return GoldCheck(run=done, comparisons=compare_with_expected(chosen, done.scores[chosen.id], full=full))


def load_run(name: str | Path, runs_dir: str | Path = "runs") -> Run:
    """An earlier run: its record and its scores.

    Args:
        name: a run's name, the beginning of one, or a run folder.
        runs_dir: where run folders are.
    Raises:
        UserError: there is no such run, or several begin with `name`.
    """
    return Run.read(find_run(str(name), Path(runs_dir)))


def list_runs(runs_dir: str | Path = "runs", unreadable: Callable[[UserError], object] | None = None) -> list[Run]:
    """Every run of a folder, oldest first.

    Args:
        runs_dir: the folder.
        unreadable: called with the error of each record that cannot be read; None: the first error is raised.
    """
    folder = Path(runs_dir)
    return [Run(folder=folder / record.run, record=record) for record in find_runs(folder, unreadable)]


def prepare(
    *benchmarks: str,
    runtime: str = "venv",
    images: Mapping[str, str] | None = None,
    base_image: str | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Build the scorers' environments or images now, for a machine without internet for example.

    Args:
        benchmarks: by id, or by the name of an environment such as "adm-torch" (a scorer's variant) or "wise-service"
            (what a scorer asks); none means every benchmark's usual one.
        runtime: for which runtime they are built: "venv", "docker", "podman", or what an installed package adds.
        images: image name -> a ready image to use instead of building it.
        base_image: what images are built on.
        say: called with a sentence about what is being built.
    Yields:
        (name, its environment as records describe it), each as it is ready.
    Raises:
        EnvironmentFailure: one could not be built; with the end of the build's log.
    """
    project = find_project()
    catalog = Catalog.load(project)
    setting = make_setting(project, catalog, runtime=runtime, images=images, base_image=base_image)
    known = _environments(catalog)
    for name in benchmarks or catalog.benchmarks:
        environment = pick(known, name, "environment", "harness ls")
        setting.runtime.prepare(environment, say)
        yield name, setting.runtime.describe(environment)


def _environments(catalog: Catalog) -> dict[str, Environment]:
    """Every environment of scorers, by benchmark; those of variants and services have theirs behind its name."""
    found = {}
    for one in catalog.benchmarks.values():
        found[one.id] = scorer_environment(one)
        found |= {f"{one.id}-{name}": scorer_environment(one.as_variant(name)) for name in one.scorer.variants}
        if one.scorer.service:
            found[f"{one.id}-service"] = service_environment(one.id, one.scorer.service)
    return found


# --- what the command line calls -------------------------------------------------------------------------------------


def _setting(**how: Any) -> Setting:
    """A setting for the benchmarks and assets there are; `how` as for `make_setting`."""
    project = find_project()
    return make_setting(project, Catalog.load(project), **how)


def _finished(run: Run) -> Run:
    """The run, if every step has finished; else RunFailed with the errors of the failed steps."""
    problem = failures(run.record)
    if problem:
        raise RunFailed(problem, exit_code(run.record))
    return run


def plan_of_samples(
    catalog: Catalog,
    benchmark: str,
    samples: Path,
    *,
    layout: str | None = None,
    options: Options | None = None,
    judge: str | Path | None = None,
) -> Plan:
    """The plan that scores existing samples; see `score`."""
    chosen = catalog.benchmark(benchmark)
    taken_as = chosen.layout(layout) if layout else None
    values = {benchmark: dict(options)} if options else {}
    spec = RunSpec(
        benchmarks=(benchmark,),
        generator=existing_samples(samples, taken_as),
        options=values,
        judge=named_model(judge),
        service_program=os.environ.get(PROGRAM_VARIABLE),
    )
    return _with_judge(judge, make_plan(spec, catalog))


def execute(
    plan: Plan,
    setting: Setting,
    *,
    force: bool = False,
    name: str | None = None,
    progress: bool | Reporter = False,
    command: Sequence[str] | None = None,
) -> Run:
    """Run a plan to its end; a failing step raises nothing: the record has it.

    Args:
        plan: what to do.
        setting: runtime, assets, store and machine; from `harness.running.setting.make_setting`.
        force: compute finished steps again.
        name: of the run folder.
        progress: whether to show what happens on stderr, or a reporter.
        command: for the record; by default the command line of this process.
    Raises:
        MissingAsset: before anything runs.
        UserError: an input or an environment variable is missing.
    """
    command = [Path(sys.argv[0]).name, *sys.argv[1:]] if command is None else command
    if progress is not True:
        reporter = progress or None
        record, folder = run_plan(plan, setting, force=force, run_id=name, reporter=reporter, command=command)
        return Run(folder=folder, record=record)
    from harness.running.console import TerminalReporter, stderr  # imports rich

    with TerminalReporter(stderr()) as shown:
        record, folder = run_plan(plan, setting, force=force, run_id=name, reporter=shown, command=command)
    return Run(folder=folder, record=record)
