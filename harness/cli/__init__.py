"""The command `harness`: plan, run, score and look at benchmarks.

Thin on purpose: options are turned into a `Request`, the rest happens in `plan`, `execute` and `report`.
"""

from __future__ import annotations

import itertools
import json
import os
import shlex
import sys
import webbrowser
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from rich.table import Table
from rich.text import Text

from gear.bench.reconstructions import tokenizer_generator
from harness import __version__
from harness.catalog.benchmarks import Benchmark, Catalog, pick
from harness.catalog.project import Project, find_project, home_dir
from harness.cli import doctor
from harness.cli.assets import assets, images, prepare_command
from harness.cli.base import (
    Group,
    assignment,
    command_line,
    err,
    make_setting,
    out,
    plain_table,
    request_options,
    setting_options,
    yaml_value,
)
from harness.cli.console import TerminalReporter
from harness.cli.layout import layout_command
from harness.contract.errors import (
    EXIT_DEFECT,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_PARTLY_SCORED,
    SCORER_STATUSES,
    MissingAsset,
    UserError,
    describe_statuses,
)
from harness.contract.record import ScoreRecord
from harness.planning.check import check_plan, compare_with_expected, full_check_plan
from harness.planning.generators import command_generator, existing_samples, gear_generator
from harness.planning.make import RunSpec, make_plan
from harness.planning.steps import Generator, Plan
from harness.report.compare import protocol_note
from harness.report.spread import spreads
from harness.running.execute import run_plan
from harness.running.failures import exit_code
from harness.running.preview import Preview, command_lines, describe, preview
from harness.running.setting import Setting
from harness.store.run_record import RECORD_FILE, RunRecord, find_runs

EXIT_CODES = describe_statuses(*SCORER_STATUSES, EXIT_INTERRUPTED)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="harness")
def main() -> None:
    """Score image generators: draw what a benchmark asks for, score it, and keep every number's provenance.

    \b
      harness ls                                          benchmarks and runs
      harness plan  --suite c2i --ckpt model.pt           what would happen; nothing runs
      harness run   --suite c2i --ckpt model.pt           draw, score, report
      harness run   --benchmark adm --generator 'python my_model.py' --limit 1000
      harness score adm --samples samples.npz             samples that exist already
      harness show  RUN                                   its scores and steps

    The same command again finishes from cache or goes on where it was stopped; any changed input computes again what
    depends on it, and nothing else.
    """


main.epilog = EXIT_CODES
main.add_command(assets)
main.add_command(images)
main.add_command(prepare_command)
main.add_command(layout_command)


# --- plan, run, score, check -----------------------------------------------------------------------------------------


@main.command("plan")
@request_options
@click.option("--json", "as_json", is_flag=True, help="The plan as JSON.")
@click.option("--dry-run", is_flag=True, help="One command line per step instead.")
def plan_command(as_json: bool, dry_run: bool, **options: Any) -> None:
    """Say what `run` would do, with the same options; nothing runs.

    \b
      harness plan --suite c2i --ckpt model.pt
      harness plan --benchmark adm --samples samples.npz --runtime docker --dry-run
    """
    project = find_project()
    plan = make_plan(_request(project, options), Catalog.load(project))
    setting = make_setting(project, **options)
    if as_json and dry_run:
        raise UserError("--json and --dry-run are two ways to print a plan; give one of them.")
    if as_json:
        out.print_json(json.dumps(describe(plan), default=str))
    elif dry_run:
        _print_command_lines(plan, setting)
    else:
        try:
            out.print(_plan_table(preview(plan, setting, force=options["force"])))
        except MissingAsset:  # the plan is worth reading all the same
            out.print(_plan_table([Preview(step=step, state="waits") for step in plan.steps]))
            raise


@main.command()
@request_options
@click.option("--dry-run", is_flag=True, help="Print one command line per step; nothing runs.")
def run(dry_run: bool, **options: Any) -> None:
    """Draw what benchmarks ask for, score it, and write record and report.

    \b
      harness run --suite c2i --ckpt exps/gear/model.pt --protocol cfg_scale=1.75
      harness run --benchmark adm --generator 'python my_model.py' --limit 1000
      harness run --benchmark recon --tokenizer exps/e2e --asset imagenet-val=DIR
      harness run --benchmark adm --samples samples.npz --set adm.batch_size=32 --runtime docker

    The same command again continues. Results: runs/<name>/record.json and report.html.
    """
    project = find_project()
    catalog = Catalog.load(project)
    plan = make_plan(_request(project, options), catalog)
    setting = make_setting(project, **options)
    if dry_run:
        _print_command_lines(plan, setting)
    else:
        _execute(plan, setting, catalog, force=options["force"], run_id=options["name"])


@main.command()
@click.argument("benchmark")
@click.option(
    "--samples",
    type=click.Path(path_type=Path),
    required=True,
    multiple=True,
    help="Sample set, NPZ or image folder; several: mean and spread too.",
)
@click.option("--set", "options", multiple=True, callback=assignment, metavar="KEY=VALUE", help="Scorer option.")
@click.option("--layout", metavar="NAME", help="The folder is laid out for the original scorer, such as geneval's.")
@click.option("--name", help="Name of the run folder.  [default: from the plan]")
@click.option("--force", is_flag=True, help="Score again even if it was done.")
@click.option("--dry-run", is_flag=True, help="Print one command line per step; nothing runs.")
@setting_options
def score(
    benchmark: str,
    samples: tuple[Path, ...],
    options: dict[str, str],
    layout: str | None,
    name: str | None,
    **rest: Any,
) -> None:
    """Score samples that exist already, of any generator.

    \b
      harness score adm --samples samples.npz
      harness score adm --samples folder/ --asset adm-imagenet256-reference=my_reference.npz
      harness score adm --samples seed0.npz --samples seed1.npz --samples seed2.npz
      harness score geneval --samples folder/ --layout geneval    a folder made for the original scorer
    """
    force, dry_run = rest.pop("force"), rest.pop("dry_run")
    project = find_project()
    catalog = Catalog.load(project)
    # The benchmark is clear here, but the advice of scorers names it for `harness run`: both ways of writing will do.
    named = {key if key.startswith(f"{benchmark}.") else f"{benchmark}.{key}": text for key, text in options.items()}
    values = _by_benchmark(named)
    taken_as = catalog.benchmark(benchmark).layout(layout) if layout else None
    plans = [
        make_plan(RunSpec(benchmarks=(benchmark,), generator=existing_samples(path, taken_as), options=values), catalog)
        for path in samples
    ]
    setting = make_setting(project, **rest)
    if dry_run:
        for plan in plans:
            _print_command_lines(plan, setting)
    elif len(plans) == 1:
        _execute(plans[0], setting, catalog, force=force, run_id=name)
    else:
        _execute_several(plans, setting, catalog, benchmark, force=force, run_id=name)


@main.command()
@click.argument("benchmark")
@click.option("--full", is_flag=True, help="The public batch with published scores, with the real assets.")
@setting_options
def check(benchmark: str, full: bool, **options: Any) -> None:
    """Gold check: run a scorer on its small shipped case and compare with the known answer.

    \b
      harness check adm --runtime docker
      harness check adm --full          # ADM's own 50,000 samples: gFID 3.943, IS 215.84, ...
    """
    project = find_project()
    catalog = Catalog.load(project)
    chosen: Benchmark = catalog.benchmark(benchmark)
    if full:
        setting = make_setting(project, **options)
        plan = full_check_plan(chosen, setting.assets)
    else:
        plan, overrides = check_plan(chosen)
        options["assets"] = {**overrides, **options["assets"]}
        setting = make_setting(project, **options)
    with TerminalReporter(err) as reporter:
        record, run_dir = run_plan(plan, setting, force=not full, reporter=reporter, command=command_line())
    if exit_code(record) not in (EXIT_OK, EXIT_PARTLY_SCORED):
        sys.exit(exit_code(record))
    comparisons = compare_with_expected(chosen, record.scores(run_dir)[chosen.id], full=full)
    table = plain_table("metric", "got", "expected", "off by", "allowed", "")
    for row in comparisons:
        verdict = Text("pass", "green") if row.passed else Text("FAIL", "bold red")
        table.add_row(
            row.metric, f"{row.got:.6g}", f"{row.expected:.6g}", f"{row.error:.2g}", f"{row.allowed:.2g}", verdict
        )
    out.print(table)
    if not all(row.passed for row in comparisons):
        log = run_dir / record.step(f"score-{chosen.id}").folder / "log.txt"
        problem = f"{chosen.id} does not give the known answer under {options['runtime']}"
        err.print(Text(f"{problem}: do not trust its numbers on this machine. Its log: {log}", "red"), soft_wrap=True)
        sys.exit(EXIT_DEFECT)


def _execute(plan: Plan, setting: Setting, catalog: Catalog, *, force: bool, run_id: str | None) -> None:
    """Run a plan for a person: bars, errors, scores, report; ends with the documented exit status."""
    with TerminalReporter(err) as reporter:
        record, run_dir = run_plan(plan, setting, force=force, run_id=run_id, reporter=reporter, command=command_line())
    _print_scores(record, run_dir, catalog)
    out.print(Text(f"{_report(run_dir, catalog)}"), soft_wrap=True)
    sys.exit(exit_code(record))


def _execute_several(
    plans: Sequence[Plan], setting: Setting, catalog: Catalog, benchmark: str, *, force: bool, run_id: str | None
) -> None:
    """Score sample sets of one model one after the other, each a run of its own, and print how far they spread."""
    scored = []
    for number, plan in enumerate(plans, start=1):
        name = f"{run_id}-{number}" if run_id else None
        with TerminalReporter(err) as reporter:
            record, run_dir = run_plan(
                plan, setting, force=force, run_id=name, reporter=reporter, command=command_line()
            )
        _print_scores(record, run_dir, catalog)
        out.print(Text(f"{_report(run_dir, catalog)}"), soft_wrap=True)
        if exit_code(record) not in (EXIT_OK, EXIT_PARTLY_SCORED):
            sys.exit(exit_code(record))
        scored.append(record.scores(run_dir)[benchmark])
    table = plain_table("metric", "mean", "one score's deviation", "95 % interval of the mean", "sample sets")
    for row in spreads(scored):
        label = row.metric.label or row.metric.name
        name = f"{label} ({row.metric.category})" if row.metric.category else label
        if row.spread is None:
            table.add_row(name, "–", "–", f"none: {row.obstacle}", "–")
            continue
        low, high = row.spread.interval
        mean, std = f"{row.spread.mean:.6g}", f"{row.spread.std:.3g}"
        table.add_row(name, mean, std, f"{low:.6g} .. {high:.6g}", str(row.spread.n))
    out.print(table)
    if note := protocol_note(scored):
        out.print(Text(note, "yellow"), soft_wrap=True)


# --- looking at things -----------------------------------------------------------------------------------------------


@main.command("ls")
@click.option("--runs", "runs_dir", type=click.Path(path_type=Path), default=Path("runs"), show_default=True)
def ls(runs_dir: Path) -> None:
    """List the benchmarks there are and the runs that were made."""
    from harness.report.table import runs_table

    table = plain_table("benchmark", "suites", "what it measures")
    for benchmark in Catalog.load(find_project()).benchmarks.values():
        table.add_row(Text(benchmark.id, "bold"), ", ".join(benchmark.suites), benchmark.title)
    out.print(table)
    records = find_runs(runs_dir, lambda problem: err.print(Text(str(problem), "yellow"), soft_wrap=True))
    rows = [(record, _scores_if_readable(record, runs_dir)) for record in records]
    out.print(runs_table(rows) if rows else f"No runs in {runs_dir} yet.")


@main.command()
@click.argument("run")
@click.option("--runs", "runs_dir", type=click.Path(path_type=Path), default=Path("runs"), show_default=True)
@click.option("--json", "as_json", is_flag=True, help="record.json.")
def show(run: str, runs_dir: Path, as_json: bool) -> None:
    """Show scores and steps of a run: its name, the beginning of it, or its folder."""
    from harness.report.table import steps_table

    run_dir = find_run(run, runs_dir)
    if as_json:
        click.echo((run_dir / RECORD_FILE).read_text(encoding="utf-8"), nl=False)
        return
    record = RunRecord.read(run_dir)
    out.print(Text.assemble((record.run, "bold"), f"  {record.status}, started {record.started}"))
    out.print(Text(f"$ {shlex.join(record.command)}", "dim"), soft_wrap=True)
    _print_scores(record, run_dir, Catalog.load(find_project()))
    out.print(steps_table(record.steps))
    for step in record.steps:
        if step.error:
            out.print(Text.assemble((f"{step.name}: ", "bold red"), step.error), soft_wrap=True)


@main.command()
@click.argument("run")
@click.option("--runs", "runs_dir", type=click.Path(path_type=Path), default=Path("runs"), show_default=True)
@click.option("--open", "open_it", is_flag=True, help="Open it in the browser.")
def report(run: str, runs_dir: Path, open_it: bool) -> None:
    """Write the HTML report of a run again and print where it is."""
    path = _report(find_run(run, runs_dir), Catalog.load(find_project()))
    click.echo(path)
    if open_it:
        webbrowser.open(path.resolve().as_uri())


@main.command()
@click.argument("runs", nargs=-1, required=True)
@click.option("--runs", "runs_dir", type=click.Path(path_type=Path), default=Path("runs"), show_default=True)
def compare(runs: tuple[str, ...], runs_dir: Path) -> None:
    """Put the scores of several runs side by side and say which is better, where that can be said."""
    from harness.report.sections import ScoreColumn
    from harness.report.table import score_table

    folders = list(dict.fromkeys(find_run(run, runs_dir).resolve() for run in runs))
    read = [RunRecord.read(folder).scores(folder) for folder in folders]
    scores = dict(zip(_distinct_names(folders), read, strict=True))
    for benchmark in dict.fromkeys(name for by_benchmark in scores.values() for name in by_benchmark):
        columns = [
            ScoreColumn(label=name, record=by_benchmark[benchmark])
            for name, by_benchmark in scores.items()
            if benchmark in by_benchmark
        ]
        out.print(score_table(columns, title=benchmark))


@main.command("doctor")
@setting_options
def doctor_command(**options: Any) -> None:
    """Check this machine: engines, environments, disk, GPUs, and which assets or settings are missing for what.

    Exit status 6 when the chosen runtime cannot be used.
    """
    project = find_project()
    catalog = Catalog.load(project)
    setting = make_setting(project, **options)
    table = plain_table("", "", "")
    checks = doctor.checks(setting, home_dir())
    for item in checks:
        mark = Text("✓", "green") if item.ok else Text("✗", "bold red")
        table.add_row(mark, Text(item.name, "bold"), f"{item.detail}\n  → {item.fix}" if item.fix else item.detail)
    out.print(table)
    for benchmark in catalog.benchmarks.values():
        missing = setting.assets.missing((name, benchmark.id) for name in benchmark.needed_assets)
        problems = [str(problem) for problem in missing]
        problems += [
            f"{benchmark.id} needs {name} in the environment: {meaning}"
            for name, meaning in benchmark.scorer.variables.items()
            if not os.environ.get(name)
        ]
        state = Text("complete", "green") if not problems else Text(f"{len(problems)} missing", "yellow")
        out.print(Text.assemble((f"{benchmark.id}: ", "bold"), state))
        for problem in problems:
            out.print(Text(f"  {problem}"), soft_wrap=True)
    sys.exit(0 if all(item.ok or not item.required for item in checks) else 6)


# --- helpers ---------------------------------------------------------------------------------------------------------


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


def _distinct_names(folders: Sequence[Path]) -> list[str]:
    """The shortest ends of different absolute paths that tell them apart."""
    by_length = (["/".join(folder.parts[-length:]) for folder in folders] for length in itertools.count(1))
    return next(names for names in by_length if len(set(names)) == len(folders))


def _request(project: Project, options: Mapping[str, Any]) -> RunSpec:
    return RunSpec(
        benchmarks=options["benchmarks"],
        suite=options["suite"],
        generator=_generator(project, options),
        limit=options["limit"],
        run_seed=options["run_seed"],
        protocol={name: yaml_value(f"--protocol {name}", text) for name, text in options["protocol"].items()},
        options=_by_benchmark(options["options"]),
    )


def _generator(project: Project, options: Mapping[str, Any]) -> Generator:
    given = [name for name in ("ckpt", "tokenizer", "generator", "samples") if options[name] is not None]
    if len(given) != 1:
        problem = "Who draws? Give one of" if not given else "Give only one of"
        raise UserError(f"{problem} --ckpt FILE, --tokenizer FILE, --generator COMMAND, --samples PATH.")
    for name in ("vq_ckpt", "text_encoder", "draw"):
        if options[name] and given != ["ckpt"]:
            raise UserError(f"--{name.replace('_', '-')} belongs to --ckpt, which was not given.")
    if given == ["ckpt"]:
        return gear_generator(
            project,
            options["ckpt"],
            options["vq_ckpt"],
            text_encoder=options["text_encoder"],
            options=options["draw"],
            gpus=options["gpus"],
        )
    if given == ["tokenizer"]:
        return tokenizer_generator(
            project,
            options["tokenizer"],
            options=_by_benchmark(options["options"]),
            limit=options["limit"],
        )
    if given == ["generator"]:
        return command_generator(options["generator"], version=options["generator_version"], gpus=options["gpus"])
    return existing_samples(options["samples"])


def _by_benchmark(values: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """{"adm.batch_size": "32"} -> {"adm": {"batch_size": 32}}."""
    options: dict[str, dict[str, Any]] = {}
    for name, text in values.items():
        benchmark, dot, key = name.partition(".")
        if not dot:
            raise UserError(f"--set {name}={text}: name the benchmark too, as in --set BENCHMARK.{name}={text}.")
        options.setdefault(benchmark, {})[key] = yaml_value(f"--set {name}", text)
    return options


def _report(run_dir: Path, catalog: Catalog) -> Path:
    from harness.report.run import report_for_run  # imports the plotting library

    return report_for_run(run_dir, catalog)


def _print_scores(record: RunRecord, run_dir: Path, catalog: Catalog) -> None:
    from harness.report.declared import labelled
    from harness.report.sections import ScoreColumn
    from harness.report.table import score_table

    label = str(record.generator.get("name") or record.run)
    for name, scored in record.scores(run_dir).items():
        column = ScoreColumn(label=label, record=labelled(scored, catalog.benchmarks.get(name)))
        out.print(score_table([column], title=name))
        for note in scored.notes:
            out.print(Text(f"  note: {note}", "dim"), soft_wrap=True)


def _scores_if_readable(record: RunRecord, runs_dir: Path) -> dict[str, ScoreRecord]:
    """The scores of a run; one that cannot be read is reported and must not hide the other runs."""
    try:
        return record.scores(runs_dir / record.run)
    except UserError as error:
        err.print(Text.assemble((f"{record.run}: ", "yellow"), str(error)), soft_wrap=True)
        return {}


def _print_command_lines(plan: Plan, setting: Setting) -> None:
    for step, line in command_lines(plan, setting):
        click.secho(f"# {step.name}", fg="cyan")
        click.echo(shlex.join(line))


def _plan_table(previews: Sequence[Preview]) -> Table:
    words = {"cached": ("finished, from cache", "cyan"), "resume": ("goes on", "yellow"), "run": ("runs", "green")}
    table = plain_table("step", "what", "environment", "GPUs", "memory", "key", "now")
    for row in previews:
        step = row.step
        text, style = words.get(row.state, (f"after {', '.join(step.needs)}" if step.needs else "", "dim"))
        gpus = str(step.resources.gpus or "")
        memory = f"{step.resources.memory_gb:g} GB"
        key = (row.key or "")[:12]
        table.add_row(step.name, step.title, step.environment.name, gpus, memory, Text(key, "dim"), Text(text, style))
    return table
