"""`harness check`: gold checks, and runs held against recorded ones."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource
from rich.text import Text

from harness import api
from harness.cli.base import (
    Command,
    assignment,
    command_line,
    err,
    of_benchmark,
    out,
    plain_table,
    print_reasons,
    setting_options,
)
from harness.contract.errors import EXIT_DEFECT, EXIT_NOT_COMPARABLE, EXIT_OK, EXIT_PARTLY_SCORED, UserError
from harness.report.formats import format_together
from harness.reproduce.against import Held, environment_notes, hold, read_tolerances
from harness.running.console import TerminalReporter
from harness.running.failures import exit_code


@click.command(cls=Command)
@click.argument("name", metavar="[BENCHMARK | RUN]", required=False)
@click.option("--full", is_flag=True, help="Use the public batch with published scores and the real assets.")
@click.option(
    "--against",
    "records",
    multiple=True,
    metavar="RECORD",
    help="Hold RUN, or the recorded command run again, against this run or frozen folder; several: their spread.",
)
@click.option(
    "--tolerance",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="YAML: how far metrics may be off, as benchmark: {metric: {rel: 1.0e-3}}.",
)
@click.option("--set", "changes", multiple=True, callback=assignment, metavar="KEY=VALUE", help="Scorer option.")
@setting_options
@click.pass_context
def check(
    ctx: click.Context,
    name: str | None,
    full: bool,
    records: tuple[str, ...],
    tolerance: Path | None,
    changes: dict[str, str],
    **options: Any,
) -> None:
    """Check a scorer on its shipped case with a known answer, or a run against a recorded one.

    \b
      harness check adm --runtime docker
      harness check adm --set adm.backend=torch
      harness check adm --full          # ADM's own 50,000 samples: gFID 3.943, IS 215.84, ...
      harness check --against results/first          runs the recorded command again
      harness check second --against results/first   takes this run
    """
    if records and (full or changes):
        raise UserError("--full and --set belong to the check of a scorer; leave them out with --against.")
    if tolerance and not records:
        raise UserError("--tolerance says how far a run may be off a recorded one; give --against RECORD, too.")
    if records:
        _check_against(ctx, name, records, tolerance, options["runs_dir"])
    elif name is None:
        raise UserError("Name a benchmark to check its scorer, or give --against RECORD: harness check --help")
    else:
        _check_scorer(name, full, changes, options)


# --- a scorer --------------------------------------------------------------------------------------------------------


def _check_scorer(benchmark: str, full: bool, changes: dict[str, str], options: dict[str, Any]) -> None:
    values = of_benchmark(benchmark, changes)
    with TerminalReporter(err) as reporter:
        checked = api.check(benchmark, full=full, options=values, progress=reporter, command=command_line(), **options)
    if not checked.comparisons:
        sys.exit(exit_code(checked.run.record))
    table = plain_table("metric", "got", "expected", "off by", "allowed", "")
    for row in checked.comparisons:
        verdict = Text("pass", "green") if row.passed else Text("FAIL", "bold red")
        table.add_row(
            row.metric, f"{row.got:.6g}", f"{row.expected:.6g}", f"{row.error:.2g}", f"{row.allowed:.2g}", verdict
        )
    out.print(table)
    if not checked.passed:
        log = checked.run.folder / checked.run.record.step(f"score-{benchmark}").folder / "log.txt"
        problem = f"{benchmark} does not reproduce the known answer under {options['runtime']}"
        err.print(Text(f"{problem}: do not trust its numbers on this machine. Its log: {log}", "red"), soft_wrap=True)
        sys.exit(EXIT_DEFECT)


# --- a run -----------------------------------------------------------------------------------------------------------


def _check_against(
    ctx: click.Context, name: str | None, records: Sequence[str], tolerance: Path | None, runs_dir: Path
) -> None:
    """Exit status: 0 the same numbers, 1 others, 7 no comparison."""
    recorded = [api.load_run(record, runs_dir) for record in records]
    allowed = read_tolerances(tolerance, recorded[0]) if tolerance else {}
    for run in recorded:  # read now: the run may be the recorded one itself, run again
        if not run.scores:
            raise UserError(f"{run.folder}: has no finished score to hold a run against; name another record.")
    run = api.load_run(name, runs_dir) if name else _run_again(recorded[0], runs_dir, _given(ctx))
    held = list(hold(run, recorded, allowed))
    _print_held(held)
    verdicts = {row.verdict for row in held}
    if verdicts != {"equal"}:
        for note in environment_notes(run, recorded[0]):
            err.print(Text(note, "dim"), soft_wrap=True)
    if "differs" in verdicts:
        sys.exit(EXIT_DEFECT)
    if "not comparable" in verdicts:
        sys.exit(EXIT_NOT_COMPARABLE)


def _given(ctx: click.Context) -> list[str]:
    """The options of the setting that were typed, to be added to the recorded command."""
    words = []
    for parameter in ctx.command.params:
        own = parameter.name in ("name", "full", "changes", "records", "tolerance", None)
        if own or ctx.get_parameter_source(str(parameter.name)) is not ParameterSource.COMMANDLINE:
            continue
        value = ctx.params[str(parameter.name)]
        values = [f"{key}={text}" for key, text in value.items()] if isinstance(value, dict) else [str(value)]
        words += [word for text in values for word in (parameter.opts[0], text)]
    return words


def _run_again(recorded: api.Run, runs_dir: Path, given: Sequence[str]) -> api.Run:
    """Run the recorded command and return its run; finished steps come from the store as always."""
    command = recorded.record.command
    if not command or command[0] != "harness" or command[1:2] == ("check",):
        raise UserError(
            f"{recorded.folder}: was not made by a command that can be run again ({' '.join(command[:2]) or 'none'}); "
            "make the run, and name it: harness check RUN --against RECORD"
        )
    before, words = _written(runs_dir), [*command[1:], "--runs", str(runs_dir), *given]
    status = subprocess.call([sys.executable, "-m", "harness", *words], stdout=2)  # what it prints is no part of this
    if status not in (EXIT_OK, EXIT_PARTLY_SCORED):
        err.print(Text(f"{recorded.folder}: its command failed, so there is nothing to hold against it.", "red"))
        sys.exit(status)
    made = [name for name, when in _written(runs_dir).items() if before.get(name) != when]
    if len(made) != 1:
        raise UserError(
            f"{recorded.folder}: its command made {len(made)} runs in {runs_dir}; name the one to hold against it: "
            "harness check RUN --against RECORD"
        )
    return api.load_run(made[0], runs_dir)


def _written(runs_dir: Path) -> dict[str, int]:
    """Run -> when its record was last written."""
    return {path.parent.name: path.stat().st_mtime_ns for path in runs_dir.glob("*/record.json")}


def _print_held(held: Sequence[Held]) -> None:
    styles = {"equal": "green", "differs": "bold red", "not comparable": "yellow"}
    table = plain_table("metric", "recorded", "now", "")
    for row in held:
        values = iter(format_together([value for value in (row.recorded, row.got) if value is not None]))
        texts = ["–" if value is None else next(values) for value in (row.recorded, row.got)]
        verdict = Text(row.verdict, styles.get(row.verdict, "green"))
        table.add_row(Text(f"{row.benchmark} {row.metric.title}"), *texts, verdict)
    out.print(table)
    print_reasons((f"{row.benchmark} {row.metric.title}", row.why) for row in held)
