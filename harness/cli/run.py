"""`harness plan`, `harness run`, `harness score`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from harness import api
from harness.catalog.benchmarks import Catalog
from harness.catalog.project import find_project
from harness.cli.base import (
    Command,
    assignment,
    by_benchmark,
    command_line,
    err,
    judge_option,
    of_benchmark,
    out,
    plain_table,
    request_options,
    say,
    setting_options,
    yaml_value,
)
from harness.cli.look import print_scores, write_report
from harness.cli.setting import take_setting
from harness.contract.errors import EXIT_OK, EXIT_PARTLY_SCORED, MissingAsset, UserError
from harness.contract.shown import shell_line
from harness.report.compare import protocol_note
from harness.running.console import TerminalReporter
from harness.running.estimates import Estimate, estimates
from harness.running.failures import exit_code
from harness.running.preview import Preview, command_lines, describe, preview
from harness.running.setting import Setting


@click.command(cls=Command)
@request_options
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
@click.option("--dry-run", is_flag=True, help="Print one command line per step.")
def plan(as_json: bool, dry_run: bool, **options: Any) -> None:
    """Show what `run` would do, without running anything.

    \b
      harness plan --suite c2i --generator 'python my_model.py'
      harness plan --benchmark adm --samples samples.npz --runtime docker --dry-run
    """
    if as_json and dry_run:
        raise UserError("--json and --dry-run are two ways to print a plan; give one of them.")
    force, assets, setting = options.pop("force"), options["assets"], take_setting(options)
    planned = _plan(options, assets)
    if as_json:
        out.print_json(json.dumps({**describe(planned), "assets": _asset_rows(planned, setting)}, default=str))
    elif dry_run:
        _print_command_lines(planned, setting)
    else:
        try:
            _print_plan(planned, setting, preview(planned, setting, force=force))
        except MissingAsset:  # the plan is still worth reading
            _print_plan(planned, setting, [Preview(step=step, state="waits") for step in planned.steps])
            raise


@click.command(cls=Command)
@request_options
@click.option("--dry-run", is_flag=True, help="Print one command line per step; nothing runs.")
def run(dry_run: bool, force: bool, **options: Any) -> None:
    """Draw images, score them, and write record and report.

    \b
      harness run --benchmark adm --generator 'python my_model.py' --limit 1000
      harness run --suite t2i --generator 'python my_model.py' --protocol cfg_scale=4
      harness run --benchmark adm --samples samples.npz --set adm.batch_size=32 --runtime docker

    The same command continues it. Results: runs/<name>/record.json, report.html.
    """
    name, assets, setting = options["name"], options["assets"], take_setting(options)
    planned = _plan(options, assets)
    if dry_run:
        _print_command_lines(planned, setting)
    else:
        done = _execute(planned, setting, force=force, name=name)
        if options["only"] == "draw":
            _print_drawn(done)
        sys.exit(exit_code(done.record))


@click.command(cls=Command)
@click.argument("benchmark")
@click.option(
    "--samples",
    type=click.Path(path_type=Path),
    required=True,
    multiple=True,
    help="Sample set, NPZ or image folder; several give mean and spread.",
)
@click.option("--set", "options", multiple=True, callback=assignment, metavar="KEY=VALUE", help="Scorer option.")
@judge_option
@click.option("--layout", metavar="NAME", help="Layout of a folder made for the original scorer, such as geneval.")
@click.option("--name", help="Name of the run folder.  [default: from the plan]")
@click.option("--force", is_flag=True, help="Score again even if a score exists.")
@click.option("--dry-run", is_flag=True, help="Print one command line per step; nothing runs.")
@setting_options
def score(
    benchmark: str,
    samples: tuple[Path, ...],
    options: dict[str, str],
    layout: str | None,
    judge: str | None,
    name: str | None,
    force: bool,
    dry_run: bool,
    **rest: Any,
) -> None:
    """Score existing samples, of any generator.

    \b
      harness score adm --samples samples.npz
      harness score adm --samples folder/ --asset adm-imagenet256-reference=my_reference.npz
      harness score adm --samples seed0.npz --samples seed1.npz --samples seed2.npz
      harness score geneval --samples folder/ --layout geneval    a folder made for the original scorer
    """
    catalog, setting = Catalog.load(find_project()), take_setting(rest)
    how: dict[str, Any] = {"layout": layout, "options": of_benchmark(benchmark, options), "judge": judge}
    plans = [api.plan_of_samples(catalog, benchmark, path, **how) for path in samples]
    if dry_run:
        for planned in plans:
            _print_command_lines(planned, setting)
    elif len(plans) == 1:
        sys.exit(exit_code(_execute(plans[0], setting, force=force, name=name).record))
    else:
        _execute_several(plans, setting, benchmark, force=force, name=name)


def _plan(options: Mapping[str, Any], assets: Mapping[str, str]) -> api.Plan:
    """The plan from the options that remain once those of the setting are removed, and the user's own assets."""
    given = dict(options)
    given.pop("name")
    benchmarks = given.pop("benchmarks")
    protocol = {name: yaml_value(f"--protocol {name}", text) for name, text in given.pop("protocol").items()}
    return api.plan(*benchmarks, protocol=protocol, options=by_benchmark(given.pop("options")), assets=assets, **given)


def _execute(planned: api.Plan, setting: Setting, *, force: bool, name: str | None) -> api.Run:
    """Run a plan and show it on the terminal: bars, errors, scores, report."""
    catalog = Catalog.load(find_project())
    with TerminalReporter(err) as reporter:
        done = api.execute(planned, setting, force=force, name=name, progress=reporter, command=command_line())
    print_scores(done)
    out.print(Text(f"{write_report(done.folder, catalog)}"), soft_wrap=True)
    return done


def _print_drawn(done: api.Run) -> None:
    """Where the samples are, and how they are scored."""
    for step in done.record.steps:
        if step.kind == "sample" and step.digest is not None:
            folder = done.folder / step.folder / "output"
            say(f"{folder}: copy it (rsync -aL), then: harness score {step.benchmark} --samples DIR")


def _execute_several(
    plans: Sequence[api.Plan], setting: Setting, benchmark: str, *, force: bool, name: str | None
) -> None:
    """Score sample sets of one model one after the other, each as its own run, and print their spread."""
    from harness.report.spread import spreads  # imports scipy

    scored = []
    for number, planned in enumerate(plans, start=1):
        done = _execute(planned, setting, force=force, name=f"{name}-{number}" if name else None)
        if exit_code(done.record) not in (EXIT_OK, EXIT_PARTLY_SCORED):
            sys.exit(exit_code(done.record))
        scored.append(done.scores[benchmark])
    table = plain_table("metric", "mean", "one score's deviation", "95 % interval of the mean", "sample sets")
    for row in spreads(scored):
        title = row.metric.title
        if row.spread is None:
            table.add_row(title, "–", "–", f"none: {row.obstacle}", "–")
            continue
        low, high = row.spread.interval
        mean, std = f"{row.spread.mean:.6g}", f"{row.spread.std:.3g}"
        table.add_row(title, mean, std, f"{low:.6g} .. {high:.6g}", str(row.spread.n))
    out.print(table)
    if note := protocol_note(scored):
        out.print(Text(note, "yellow"), soft_wrap=True)


def _print_command_lines(planned: api.Plan, setting: Setting) -> None:
    for step, line in command_lines(planned, setting):
        click.secho(f"# {step.name}", fg="cyan")
        say(shell_line(line))


def _print_plan(planned: api.Plan, setting: Setting, previews: Sequence[Preview]) -> None:
    """The steps, what they will probably cost, and the terms of the files that they read."""
    expected = estimates(planned, setting)
    out.print(_plan_table(previews, expected))
    left = [expected[row.step.name] for row in previews if row.state != "cached"]
    known = [row.seconds for row in left if row.seconds is not None]
    if known:
        more = f", and {len(left) - len(known)} steps that never ran here" if len(known) < len(left) else ""
        out.print(Text(f"about {_duration(sum(known))} by earlier runs on this machine{more}"), soft_wrap=True)
    restricted = [row for row in _asset_rows(planned, setting) if row["commercial"] != "yes"]
    if restricted:
        table = plain_table("asset", "licence", "commercial use")
        for row in restricted:
            table.add_row(row["name"], row["licence"], row["commercial"])
        out.print(table)


def _asset_rows(planned: api.Plan, setting: Setting) -> list[dict[str, Any]]:
    """The assets of a plan: whether each is here, under which licence, and whether that allows commercial use."""
    assets = [setting.assets.listed[name] for name in dict.fromkeys(name for name, _ in planned.assets)]
    return [
        {
            "name": asset.name,
            "here": setting.assets.is_here(asset),
            "licence": asset.licence or "",
            "commercial": asset.commercial,
        }
        for asset in assets
    ]


def _plan_table(previews: Sequence[Preview], expected: Mapping[str, Estimate]) -> Table:
    words = {"cached": ("finished, from cache", "cyan"), "resume": ("continues", "yellow"), "run": ("runs", "green")}
    costs = ("disk", "time") if any(cost != Estimate() for cost in expected.values()) else ()
    table = plain_table("step", "what", "environment", "GPUs", "memory", *costs, "key", "now")
    for row in previews:
        step = row.step
        text, style = words.get(row.state, (f"after {', '.join(step.needs)}" if step.needs else "", "dim"))
        gpus = str(step.resources.gpus or "")
        memory = f"{step.resources.memory_gb:g} GB"
        key = Text((row.key or "")[:12], "dim")
        cells = _cost_cells(expected[step.name])[: len(costs)]
        table.add_row(step.name, step.title, step.environment.name, gpus, memory, *cells, key, Text(text, style))
    return table


def _cost_cells(cost: Estimate) -> tuple[str, str]:
    disk = "" if cost.disk_bytes is None else decimal(cost.disk_bytes)
    return disk, "" if cost.seconds is None else _duration(cost.seconds)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
