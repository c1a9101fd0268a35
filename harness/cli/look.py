"""`harness ls`, `show`, `report`, `export`: lists benchmarks and runs, and shows results."""

from __future__ import annotations

import shlex
import webbrowser
from pathlib import Path

import click
from rich.text import Text

from harness import api
from harness.catalog.benchmarks import Catalog
from harness.catalog.plugins import EXPORTERS
from harness.catalog.project import find_project
from harness.cli.base import Command, err, out, plain_table, runs_option, say
from harness.contract.errors import UserError
from harness.contract.files import write_atomically
from harness.contract.record import ScoreRecord
from harness.report.exporters import Exporter
from harness.report.sections import ScoreColumn
from harness.report.table import runs_table, score_table, steps_table


@click.command(cls=Command)
@runs_option
def ls(runs_dir: Path) -> None:
    """List the benchmarks and the runs."""
    table = plain_table("benchmark", "suites", "what it measures")
    for benchmark in Catalog.load(find_project()).benchmarks.values():
        table.add_row(Text(benchmark.id, "bold"), ", ".join(benchmark.suites), benchmark.title)
    out.print(table)
    runs = api.list_runs(runs_dir, lambda problem: err.print(Text(str(problem), "yellow"), soft_wrap=True))
    rows = [(run.record, _scores_if_readable(run)) for run in runs]
    out.print(runs_table(rows) if rows else f"No runs in {runs_dir} yet.")


@click.command(cls=Command)
@click.argument("run")
@runs_option
@click.option("--json", "as_json", is_flag=True, help="record.json.")
def show(run: str, runs_dir: Path, as_json: bool) -> None:
    """Show scores and steps of a run.

    RUN is its name, the beginning of it, or its folder."""
    found = api.load_run(run, runs_dir)
    record = found.record
    if as_json:
        say((found.folder / "record.json").read_text(encoding="utf-8"), end="")
        return
    out.print(Text.assemble((record.run, "bold"), f"  {record.status}, started {record.started}"))
    out.print(Text(f"$ {shlex.join(record.command)}", "dim"), soft_wrap=True)
    print_scores(found)
    out.print(steps_table(record.steps))
    for step in record.steps:
        if step.error:
            out.print(Text.assemble((f"{step.name}: ", "bold red"), step.error), soft_wrap=True)


@click.command(cls=Command)
@click.argument("run")
@runs_option
@click.option("--open", "open_it", is_flag=True, help="Open it in the browser.")
def report(run: str, runs_dir: Path, open_it: bool) -> None:
    """Write the HTML report of a run again and print its path."""
    path = write_report(api.load_run(run, runs_dir).folder, Catalog.load(find_project()))
    say(path)
    if open_it:
        webbrowser.open(path.resolve().as_uri())


@click.command(cls=Command)
@click.argument("runs", nargs=-1, required=True)
@runs_option
@click.option("--to", "form", type=click.Choice(EXPORTERS.names()), required=True, help="The output format.")
@click.option("--out", "out_path", type=click.Path(path_type=Path), help="Output file.  [default: printed]")
def export(runs: tuple[str, ...], runs_dir: Path, form: str, out_path: Path | None) -> None:
    """Export scores: one row per benchmark, metric and run.

    \b
      harness export RUN --to csv --out scores.csv
      harness export RUN RUN --to markdown
    """
    exporter: Exporter = EXPORTERS.load(form)
    text = exporter.export([api.load_run(run, runs_dir) for run in dict.fromkeys(runs)])
    if out_path is None:
        say(text, end="")
        return
    with write_atomically(out_path, "w") as handle:
        handle.write(text)
    say(out_path)


# --- helpers ---------------------------------------------------------------------------------------------------------


def print_scores(run: api.Run) -> None:
    """The scores of a run as tables, with their notes."""
    label = str(run.record.generator.get("name") or run.record.run)
    for name, scored in run.scores.items():
        column = ScoreColumn(label=label, record=scored)
        out.print(score_table([column], title=name))
        for note in scored.notes:
            out.print(Text(f"  note: {note}", "dim"), soft_wrap=True)


def write_report(run_dir: Path, catalog: Catalog) -> Path:
    """The HTML report of a run; its path."""
    from harness.report.run import report_for_run  # imports the plotting library

    return report_for_run(run_dir, catalog)


def _scores_if_readable(run: api.Run) -> dict[str, ScoreRecord]:
    """The scores of a run; one that cannot be read is reported, and the other runs are still shown."""
    try:
        return run.scores
    except UserError as error:
        err.print(Text.assemble((f"{run.record.run}: ", "yellow"), str(error)), soft_wrap=True)
        return {}
