"""`harness check`: gold checks."""

from __future__ import annotations

import sys
from typing import Any

import click
from rich.text import Text

from harness import api
from harness.cli.base import Command, assignment, command_line, err, of_benchmark, out, plain_table, setting_options
from harness.contract.errors import EXIT_DEFECT
from harness.running.console import TerminalReporter
from harness.running.failures import exit_code


@click.command(cls=Command)
@click.argument("benchmark")
@click.option("--full", is_flag=True, help="Use the public batch with published scores and the real assets.")
@click.option("--set", "changes", multiple=True, callback=assignment, metavar="KEY=VALUE", help="Scorer option.")
@setting_options
def check(benchmark: str, full: bool, changes: dict[str, str], **options: Any) -> None:
    """Check a scorer on its shipped case with a known answer.

    \b
      harness check adm --runtime docker
      harness check adm --set adm.backend=torch
      harness check adm --full          # ADM's own 50,000 samples: gFID 3.943, IS 215.84, ...
    """
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
