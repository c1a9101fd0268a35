"""The command `harness`: plan, run, score and look at benchmarks.

Thin on purpose: options are turned into a `Request`, the rest happens in `plan`, `execute` and `report`.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import shlex
import sys
import webbrowser
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import yaml
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Table
from rich.text import Text

from harness import __version__, doctor
from harness.assets import Asset, AssetStore
from harness.catalog import Benchmark, Catalog, pick
from harness.check import check_plan, compare_with_expected
from harness.console import TerminalReporter
from harness.contract.digest import sha256_file
from harness.contract.errors import MissingAsset, UserError
from harness.contract.record import ScoreRecord
from harness.digests import DigestMemo
from harness.execute import Setting, command_lines, describe, exit_code, preview, run_plan
from harness.generators import Generator, command_generator, existing_samples, gear_generator
from harness.plan import Plan, Request, make_plan
from harness.project import Project, find_project, home_dir
from harness.record import RECORD_FILE, RunRecord, find_runs
from harness.runtimes import RUNTIMES, RuntimeOptions, make_runtime

EXIT_CODES = """\b
Exit status: 0 done   2 usage or input   3 samples not as needed   4 asset missing
             5 some items unscored   6 environment failed   1 a step failed   130 interrupted"""

LAZY_COMMANDS = {"demo": "harness.demo:demo"}
"""Commands that live in modules of their own, imported when they are asked for."""

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


class Command(click.Command):
    """A command whose user errors are a sentence and a documented exit status, not a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except UserError as error:
            err.print(Text.assemble(("error: ", "bold red"), str(error)), soft_wrap=True)
            ctx.exit(error.exit_code)


class Group(click.Group):
    """A group of such commands, some of them imported only when they are asked for."""

    command_class = Command
    group_class = type

    def list_commands(self, ctx: click.Context) -> list[str]:
        lazy = [name for name, where in LAZY_COMMANDS.items() if _is_there(where)] if ctx.parent is None else []
        return [*super().list_commands(ctx), *lazy]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if ctx.parent is None and name in LAZY_COMMANDS and _is_there(LAZY_COMMANDS[name]):
            module, _, attribute = LAZY_COMMANDS[name].partition(":")
            command: click.Command = getattr(importlib.import_module(module), attribute)
            return command
        return super().get_command(ctx, name)


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


# --- options that several commands share -----------------------------------------------------------------------------


def assignment(ctx: click.Context, parameter: click.Parameter, values: Sequence[str]) -> dict[str, str]:
    """`("a=1", "b=2")` -> {"a": "1", "b": "2"}."""
    pairs = {}
    for value in values:
        name, equals, text = value.partition("=")
        if not (name and equals and text):
            raise click.BadParameter(f"'{value}' is not NAME=VALUE", ctx=ctx, param=parameter)
        pairs[name] = text
    return pairs


def setting_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Where things are run and kept."""
    options = [
        click.option(
            "--runtime",
            type=click.Choice(RUNTIMES),
            default=lambda: os.environ.get("HARNESS_RUNTIME", "venv"),
            show_default="$HARNESS_RUNTIME or venv",
            help="How steps are isolated.",
        ),
        click.option(
            "--asset", "assets", multiple=True, callback=assignment, metavar="NAME=PATH", help="Use this file."
        ),
        click.option(
            "--image", "images", multiple=True, callback=assignment, metavar="NAME=IMAGE", help="Ready image."
        ),
        click.option("--base-image", metavar="IMAGE", help="What images are built on ($BASE_IMAGE)."),
        click.option("--runs", "runs_dir", type=click.Path(path_type=Path), default=Path("runs"), show_default=True),
    ]
    return _with_options(command, options)


def request_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What to draw with, what to score."""
    existing = click.Path(exists=True, path_type=Path)
    options = [
        click.option("--suite", help="All benchmarks of a suite, such as c2i."),
        click.option("--benchmark", "benchmarks", multiple=True, help="One benchmark; may be repeated."),
        click.option("--ckpt", type=existing, help="GEAR model to draw with: file or run folder."),
        click.option("--vq-ckpt", type=existing, help="Its tokenizer, when that is another file."),
        click.option("--generator", metavar="COMMAND", help="Any program: COMMAND --requests DIR --out DIR."),
        click.option("--generator-version", default="", help="Say that something the command imports has changed."),
        click.option("--samples", type=click.Path(path_type=Path), help="Score what exists: set, NPZ or image folder."),
        click.option("--limit", type=click.IntRange(min=1), help="Only the first N requests: a cheap look."),
        click.option("--seed", "run_seed", type=int, default=0, show_default=True, help="Draw other images."),
        click.option(
            "--protocol",
            multiple=True,
            callback=assignment,
            metavar="KEY=VALUE",
            help="E.g. cfg_scale=1.75, top_k=100.",
        ),
        click.option(
            "--set", "options", multiple=True, callback=assignment, metavar="BENCH.KEY=VALUE", help="Scorer option."
        ),
        click.option("--name", help="Name of the run folder.  [default: from the plan]"),
        click.option("--force", is_flag=True, help="Compute finished steps again; the record says so."),
    ]
    return _with_options(setting_options(command), options)


def _with_options(command: Callable[..., Any], options: Sequence[Callable[..., Any]]) -> Callable[..., Any]:
    for option in reversed(options):
        command = option(command)
    return command


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
    if as_json:
        out.print_json(json.dumps(describe(plan), default=str))
    elif dry_run:
        _print_command_lines(plan, setting)
    else:
        out.print(_plan_table(plan, setting, force=options["force"]))


@main.command()
@request_options
@click.option("--dry-run", is_flag=True, help="Print one command line per step; nothing runs.")
def run(dry_run: bool, **options: Any) -> None:
    """Draw what benchmarks ask for, score it, and write record and report.

    \b
      harness run --suite c2i --ckpt exps/gear/model.pt --protocol cfg_scale=1.75
      harness run --benchmark adm --generator 'python my_model.py' --limit 1000
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
@click.option("--samples", type=click.Path(path_type=Path), required=True, help="Sample set, NPZ or image folder.")
@click.option("--set", "options", multiple=True, callback=assignment, metavar="KEY=VALUE", help="Scorer option.")
@click.option("--name", help="Name of the run folder.  [default: from the plan]")
@click.option("--force", is_flag=True, help="Score again even if it was done.")
@click.option("--dry-run", is_flag=True, help="Print one command line per step; nothing runs.")
@setting_options
def score(benchmark: str, samples: Path, options: dict[str, str], name: str | None, **rest: Any) -> None:
    """Score samples that exist already, of any generator.

    \b
      harness score adm --samples samples.npz
      harness score adm --samples folder/ --asset adm-imagenet256-reference=my_reference.npz
    """
    force, dry_run = rest.pop("force"), rest.pop("dry_run")
    project = find_project()
    catalog = Catalog.load(project)
    values = {benchmark: {key: yaml.safe_load(value) for key, value in options.items()}} if options else {}
    request = Request(benchmarks=(benchmark,), generator=existing_samples(samples), options=values)
    plan, setting = make_plan(request, catalog), make_setting(project, **rest)
    if dry_run:
        _print_command_lines(plan, setting)
    else:
        _execute(plan, setting, catalog, force=force, run_id=name)


@main.command()
@click.argument("benchmark")
@setting_options
def check(benchmark: str, **options: Any) -> None:
    """Gold check: run a scorer on its small shipped case and compare with the known answer.

    \b
      harness check adm --runtime docker
    """
    project = find_project()
    catalog = Catalog.load(project)
    chosen: Benchmark = catalog.benchmark(benchmark)
    plan, overrides = check_plan(chosen)
    options["assets"] = {**overrides, **options["assets"]}
    setting = make_setting(project, **options)
    with TerminalReporter(err) as reporter:
        record, run_dir = run_plan(plan, setting, force=True, reporter=reporter, command=command_line())
    if exit_code(record) not in (0, 5):
        sys.exit(exit_code(record))
    comparisons = compare_with_expected(chosen, record.scores(run_dir)[chosen.id])
    table = _table("metric", "got", "expected", "off by", "allowed", "")
    for row in comparisons:
        verdict = Text("pass", "green") if row.passed else Text("FAIL", "bold red")
        table.add_row(
            row.metric, f"{row.got:.6g}", f"{row.expected:.6g}", f"{row.error:.2g}", f"{row.allowed:.2g}", verdict
        )
    out.print(table)
    if not all(row.passed for row in comparisons):
        raise UserError(
            f"{chosen.id} does not give the known answer under {options['runtime']}: do not trust its numbers on this "
            f"machine. Its log: {run_dir / record.step(f'score-{chosen.id}').folder / 'log.txt'}"
        )


def _execute(plan: Plan, setting: Setting, catalog: Catalog, *, force: bool, run_id: str | None) -> None:
    """Run a plan for a person: bars, errors, scores, report; ends with the documented exit status."""
    with TerminalReporter(err) as reporter:
        record, run_dir = run_plan(plan, setting, force=force, run_id=run_id, reporter=reporter, command=command_line())
    _print_scores(record, run_dir, catalog)
    out.print(Text(f"{_report(run_dir, catalog)}"), soft_wrap=True)
    sys.exit(exit_code(record))


# --- looking at things -----------------------------------------------------------------------------------------------


@main.command("ls")
@click.option("--runs", "runs_dir", type=click.Path(path_type=Path), default=Path("runs"), show_default=True)
def ls(runs_dir: Path) -> None:
    """List the benchmarks there are and the runs that were made."""
    from harness.report.table import runs_table

    table = _table("benchmark", "suites", "what it measures")
    for benchmark in Catalog.load(find_project()).benchmarks.values():
        table.add_row(Text(benchmark.id, "bold"), ", ".join(benchmark.suites), benchmark.title)
    out.print(table)
    rows = [(record, _scores_if_readable(record, runs_dir)) for record in find_runs(runs_dir)]
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

    folders = [find_run(run, runs_dir) for run in runs]
    scores = {folder.name: RunRecord.read(folder).scores(folder) for folder in folders}
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
    """Check this machine: engines, environments, disk, GPUs, and which assets are missing for what.

    Exit status 6 when the chosen runtime cannot be used.
    """
    project = find_project()
    catalog = Catalog.load(project)
    setting = make_setting(project, **options)
    table = _table("", "", "")
    checks = doctor.checks(setting, home_dir())
    for item in checks:
        mark = Text("✓", "green") if item.ok else Text("✗", "bold red")
        table.add_row(mark, Text(item.name, "bold"), f"{item.detail}\n  → {item.fix}" if item.fix else item.detail)
    out.print(table)
    for benchmark in catalog.benchmarks.values():
        missing = setting.assets.missing((name, benchmark.id) for name in benchmark.assets)
        state = Text("assets complete", "green") if not missing else Text(f"{len(missing)} missing", "yellow")
        out.print(Text.assemble((f"{benchmark.id}: ", "bold"), state))
        for problem in missing:
            out.print(Text(f"  {problem}"), soft_wrap=True)
    sys.exit(0 if all(item.ok or not item.required for item in checks) else 6)


# --- assets ----------------------------------------------------------------------------------------------------------


@main.group(cls=Group)
def assets() -> None:
    """Weights, prompts and reference files from outside: steps never download them, `pull` does.

    \b
      harness assets ls
      harness assets pull adm-inception-graph       or: --benchmark adm, or --all
      harness assets import FILE                    brought in another way, checked all the same
    """


@assets.command("ls")
def assets_ls() -> None:
    """List every asset, whether it is here, and who needs it."""
    catalog, store = _assets()
    table = _table("", "asset", "used by", "size", "licence")
    for asset in catalog.assets.values():
        missing = store.missing([(asset.name, "")])
        here = Text("–", "dim") if missing else Text("✓", "green")
        size = "" if asset.size is None else f"{asset.size / 1e6:,.0f} MB"
        table.add_row(here, asset.name, ", ".join(asset.used_by), size, asset.licence or "")
    out.print(table)


@assets.command("pull")
@click.argument("names", nargs=-1)
@click.option("--benchmark", "benchmarks", multiple=True, help="Everything a benchmark needs.")
@click.option("--all", "everything", is_flag=True, help="Everything there is.")
def assets_pull(names: tuple[str, ...], benchmarks: tuple[str, ...], everything: bool) -> None:
    """Fetch assets, going on where a download was cut off, and check them."""
    catalog, store = _assets()
    of_benchmarks = [asset for name in benchmarks for asset in catalog.benchmark(name).assets]
    chosen = list(catalog.assets) if everything else [*names, *of_benchmarks]
    if not chosen:
        raise UserError("Say what to fetch: names, --benchmark NAME, or --all. List them: harness assets ls")
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=err) as bars:
        for name in dict.fromkeys(chosen):
            task = bars.add_task(name, total=None)

            def moved(done: int, total: int | None, task: Any = task) -> None:
                bars.update(task, completed=done, total=total)

            click.echo(store.pull(catalog.asset(name), moved))


@assets.command("verify")
@click.argument("names", nargs=-1)
def assets_verify(names: tuple[str, ...]) -> None:
    """Hash the assets that are here and compare with the list; exit status 4 when one is wrong."""
    catalog, store = _assets()
    wrong = 0
    for asset in [catalog.asset(name) for name in names] or list(catalog.assets.values()):
        path = store.path(asset)
        if not path.is_file():
            state = Text("not here", "dim")
        elif store.expected_sha256(asset) == sha256_file(path):  # read, not remembered: this is about the disk
            state = Text("ok", "green")
        else:
            state, wrong = Text(f"WRONG: {path}", "bold red"), wrong + 1
        out.print(Text.assemble(f"{asset.name}: ", state), soft_wrap=True)
    if wrong:
        raise MissingAsset("Remove the files marked WRONG and fetch them again: harness assets pull NAME")


@assets.command("path")
@click.argument("name")
def assets_path(name: str) -> None:
    """Print where an asset is."""
    catalog, store = _assets()
    catalog.asset(name)
    click.echo(store.find(name).path)


@assets.command("import")
@click.argument("words", nargs=-1, required=True, metavar="[NAME] FILE")
def assets_import(words: tuple[str, ...]) -> None:
    """Bring in a file that came another way. Without NAME it is found by the file's name or sha256."""
    catalog, store = _assets()
    if len(words) > 2:
        raise UserError("Give one file, and before it the name of the asset: harness assets import NAME FILE")
    file = Path(words[-1])
    asset = catalog.asset(words[0]) if len(words) == 2 else _guess_asset(catalog, file)
    click.echo(store.bring(asset, file))


def _guess_asset(catalog: Catalog, file: Path) -> Asset:
    digest = sha256_file(file) if file.is_file() else ""
    matches = [asset for asset in catalog.assets.values() if digest and asset.sha256 == digest]
    matches = matches or [asset for asset in catalog.assets.values() if asset.file == file.name]
    if len(matches) != 1:
        raise UserError(f"{file}: it is not clear which asset this is; say so: harness assets import NAME {file}")
    return matches[0]


# --- images ----------------------------------------------------------------------------------------------------------


@main.group(cls=Group)
def images() -> None:
    """Docker images of the scorers, built from docker/<name>/Dockerfile when they are first needed."""


@images.command("build")
@click.argument("benchmarks", nargs=-1)
@setting_options
def images_build(benchmarks: tuple[str, ...], **options: Any) -> None:
    """Build the images of benchmarks (default: all) now, unless they are there.

    \b
      harness images build adm --base-image python:3.11-slim
    """
    from harness.plan import scorer_environment

    project = find_project()
    catalog = Catalog.load(project)
    runtime = make_setting(project, **{**options, "runtime": "docker"}).runtime
    for benchmark in [catalog.benchmark(name) for name in benchmarks] or list(catalog.benchmarks.values()):
        environment = scorer_environment(benchmark)
        runtime.prepare(environment, lambda text: err.print(text, markup=False))
        click.echo(f"{benchmark.id}: {runtime.describe(environment)['image']}")


# --- helpers ---------------------------------------------------------------------------------------------------------


def find_run(name: str, runs_dir: Path) -> Path:
    """The run folder called `name`: a folder, a run's name, or the beginning of one.

    Raises:
        UserError: there is none, or several.
    """
    for path in (runs_dir / name, Path(name)):
        if (path / RECORD_FILE).is_file():
            return path
    runs = {record.run: runs_dir / record.run for record in find_runs(runs_dir)}
    matches = [path for run, path in runs.items() if run.startswith(name)]
    if len(matches) > 1:
        raise UserError(
            f"'{name}' begins {len(matches)} runs ({', '.join(path.name for path in matches)}); give more of it."
        )
    found: Path = matches[0] if matches else pick(runs, name, "run", "harness ls")
    return found


def _request(project: Project, options: Mapping[str, Any]) -> Request:
    return Request(
        benchmarks=options["benchmarks"],
        suite=options["suite"],
        generator=_generator(project, options),
        limit=options["limit"],
        run_seed=options["run_seed"],
        protocol={name: yaml.safe_load(value) for name, value in options["protocol"].items()},
        options=_by_benchmark(options["options"]),
        name=options["name"],
    )


def _generator(project: Project, options: Mapping[str, Any]) -> Generator:
    given = [name for name in ("ckpt", "generator", "samples") if options[name] is not None]
    if len(given) != 1:
        problem = "Who draws? Give one of" if not given else "Give only one of"
        raise UserError(f"{problem} --ckpt FILE, --generator COMMAND, --samples PATH.")
    if given == ["ckpt"]:
        return gear_generator(project, options["ckpt"], options["vq_ckpt"])
    if given == ["generator"]:
        return command_generator(options["generator"], version=options["generator_version"])
    return existing_samples(options["samples"])


def _by_benchmark(values: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """{"adm.batch_size": "32"} -> {"adm": {"batch_size": 32}}."""
    options: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        benchmark, dot, key = name.partition(".")
        if not dot:
            raise UserError(f"--set {name}={value}: name the benchmark too, as in --set adm.{name}={value}.")
        options.setdefault(benchmark, {})[key] = yaml.safe_load(value)
    return options


def make_setting(project: Project, **options: Any) -> Setting:
    home = home_dir()
    memo = DigestMemo(home / "digests")
    catalog = Catalog.load(project)
    overrides = {catalog.asset(name).name: Path(path).resolve() for name, path in options["assets"].items()}
    runtime_options = RuntimeOptions(base_image=options["base_image"], images=options["images"])
    return Setting(
        runtime=make_runtime(options["runtime"], project, home, runtime_options),
        assets=AssetStore(home / "assets", catalog.assets, memo, overrides),
        memo=memo,
        runs_dir=options["runs_dir"].resolve(),
    )


def _assets() -> tuple[Catalog, AssetStore]:
    catalog, home = Catalog.load(find_project()), home_dir()
    return catalog, AssetStore(home / "assets", catalog.assets, DigestMemo(home / "digests"))


def command_line() -> list[str]:
    return ["harness", *sys.argv[1:]]


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


def _plan_table(plan: Plan, setting: Setting, *, force: bool) -> Table:
    words = {"cached": ("finished, from cache", "cyan"), "resume": ("goes on", "yellow"), "run": ("runs", "green")}
    table = _table("step", "what", "environment", "GPUs", "memory", "key", "now")
    for row in preview(plan, setting, force=force):
        step = row.step
        text, style = words.get(row.state, (f"after {', '.join(step.needs)}", "dim"))
        gpus = str(step.resources.gpus or "")
        memory = f"{step.resources.memory_gb:g} GB"
        key = (row.key or "")[:12]
        table.add_row(step.name, step.title, step.environment.name, gpus, memory, Text(key, "dim"), Text(text, style))
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column)
    return table


def _is_there(where: str) -> bool:
    return importlib.util.find_spec(where.partition(":")[0]) is not None
