"""`harness check`: gold checks."""

from __future__ import annotations

import sys
from typing import Any

import click
from rich.text import Text

from harness import api
from harness.catalog.benchmarks import Catalog
from harness.catalog.project import find_project
from harness.cli.base import Command, command_line, err, out, plain_table, setting_options
from harness.contract.errors import EXIT_DEFECT, EXIT_OK, EXIT_PARTLY_SCORED
from harness.planning.check import check_plan, compare_with_expected, full_check_plan
from harness.running.console import TerminalReporter
from harness.running.failures import exit_code
from harness.running.setting import make_setting


@click.command(cls=Command)
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
    chosen = catalog.benchmark(benchmark)
    if full:
        setting = make_setting(project, catalog, **options)
        plan = full_check_plan(chosen, setting.assets)
    else:
        plan, overrides = check_plan(chosen)
        options["assets"] = {**overrides, **options["assets"]}
        setting = make_setting(project, catalog, **options)
    with TerminalReporter(err) as reporter:
        done = api.execute(plan, setting, force=not full, progress=reporter, command=command_line())
    if exit_code(done.record) not in (EXIT_OK, EXIT_PARTLY_SCORED):
        sys.exit(exit_code(done.record))
    comparisons = compare_with_expected(chosen, done.scores[chosen.id], full=full)
    table = plain_table("metric", "got", "expected", "off by", "allowed", "")
    for row in comparisons:
        verdict = Text("pass", "green") if row.passed else Text("FAIL", "bold red")
        table.add_row(
            row.metric, f"{row.got:.6g}", f"{row.expected:.6g}", f"{row.error:.2g}", f"{row.allowed:.2g}", verdict
        )
    out.print(table)
    if not all(row.passed for row in comparisons):
        log = done.folder / done.record.step(f"score-{chosen.id}").folder / "log.txt"
        problem = f"{chosen.id} does not give the known answer under {options['runtime']}"
        err.print(Text(f"{problem}: do not trust its numbers on this machine. Its log: {log}", "red"), soft_wrap=True)
        sys.exit(EXIT_DEFECT)
