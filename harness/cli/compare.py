"""`harness compare`: which of several runs is better, and whether the data can tell."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from rich.text import Text

from harness import api
from harness.catalog.benchmarks import Catalog
from harness.catalog.project import find_project
from harness.cli.base import Command, err, out, plain_table, print_reasons, runs_option, say
from harness.contract.errors import EXIT_DEFECT, EXIT_NOT_COMPARABLE, UserError, describe_statuses, pick
from harness.contract.record import ScoreRecord
from harness.report.compare import ComparisonResult, metric_rows
from harness.report.formats import format_together
from harness.report.sections import ScoreColumn
from harness.report.table import score_table
from harness.reproduce.paired import Difference, differences, group_differences
from harness.running.setting import make_setting

EVERY = "*"
_STYLES = {"better": "green", "worse": "bold red", "the same": "green"}
_SHOWN_ITEMS = 5

Scores = Mapping[str, Mapping[str, ScoreRecord]]
"""Run -> benchmark -> score."""


@click.command(cls=Command, epilog=describe_statuses(0, EXIT_DEFECT, EXIT_NOT_COMPARABLE))
@click.argument("runs", nargs=-1, required=True)
@click.option(
    "--fail-if-worse",
    "gates",
    is_flag=False,
    flag_value=EVERY,
    multiple=True,
    metavar="[METRIC[:MARGIN]]",
    help="Exit status 1 if the second run is worse: told apart by the data, or by more than MARGIN.",
)
@click.option("--json", "as_json", is_flag=True, help="Everything as JSON.")
@runs_option
def compare(runs: tuple[str, ...], gates: tuple[str, ...], as_json: bool, runs_dir: Path) -> None:
    """Compare the scores of several runs side by side.

    Two runs on the same prompts and seeds are compared item by item. A comma joins runs of one model with other seeds.

    \b
      harness compare first second third
      harness compare first second --fail-if-worse geneval
      harness compare first second --fail-if-worse fid:0.5
      harness compare a-seed1,a-seed2,a-seed3 b-seed1,b-seed2,b-seed3
    """
    groups = [[api.load_run(name, runs_dir) for name in word.split(",")] for word in runs]
    scores = _scores([run for group in groups for run in group])
    found = _differences(groups)
    if gates and len(groups) != 2:
        raise UserError("--fail-if-worse: compares the second of two runs with the first; give two.")
    gated = [(gate, row) for gate in gates for row in _gated(found, gate)]
    failed = [row for gate, row in gated if _is_worse(row, gate)]
    if as_json:
        say(json.dumps({"scores": list(_score_rows(scores)), "differences": [_as_row(row) for row in found]}, indent=2))
    else:
        _print_scores(scores)
        _print_differences(found)
    for row in failed:
        err.print(Text(f"{row.benchmark}: {row.metric.title} is worse by {row.loss:.6g}.", "bold red"), soft_wrap=True)
    if failed:
        sys.exit(EXIT_DEFECT)
    if not all(_comparable(scores)) or any(row.conclusion == "not comparable" for _, row in gated):
        sys.exit(EXIT_NOT_COMPARABLE)


def _differences(groups: Sequence[Sequence[api.Run]]) -> list[Difference]:
    """Of two runs, item by item; of two groups, by their spread; of more, none."""
    if len(groups) != 2:
        if any(len(group) > 1 for group in groups):
            raise UserError(
                "Runs joined by commas are compared with those of one other model: harness compare A1,A2 B1,B2"
            )
        return []
    if max(map(len, groups)) > 1:
        return list(group_differences(*groups))
    project = find_project()
    catalog = Catalog.load(project)
    assets = make_setting(project, catalog).assets
    return list(differences(groups[0][0], groups[1][0], catalog.benchmarks, assets.path_if_here))


# --- gates -----------------------------------------------------------------------------------------------------------


def _gated(found: Sequence[Difference], gate: str) -> list[Difference]:
    """The metrics that a gate names, or all of whole benchmarks; UserError when there is no such metric."""
    name = gate.partition(":")[0]
    overall = [row for row in found if row.metric.category is None]
    if name == EVERY:
        return overall
    pick({row.metric.name: row for row in overall}, name, "metric of both runs", "harness compare RUN RUN")
    return [row for row in overall if row.metric.name == name]


def _is_worse(row: Difference, gate: str) -> bool:
    """Whether a metric fails a gate: the data say that it is worse, or it is worse by more than the margin."""
    name, colon, text = gate.partition(":")
    if colon:
        return row.conclusion != "not comparable" and (row.loss or 0.0) > _margin(gate, text)
    if row.conclusion == "cannot be told" and name != EVERY:
        say_how = f"{row.metric.title}: {row.why}. State a margin: --fail-if-worse {name}:MARGIN"
        err.print(Text(say_how, "yellow"), soft_wrap=True)
    return row.conclusion == "worse"


def _margin(gate: str, text: str) -> float:
    try:
        margin = float(text)
    except ValueError:
        margin = -1.0
    if not 0 <= margin < float("inf"):
        raise UserError(f"--fail-if-worse {gate}: the margin is a number of at least 0, as in geneval:0.01.")
    return margin


def _comparable(scores: Scores) -> Iterator[bool]:
    """For each benchmark, whether the runs that have it compare on any metric; False where no two runs share one."""
    shared = 0
    for benchmark in _benchmarks(scores):
        records = [scored[benchmark] for scored in scores.values() if benchmark in scored]
        if len(records) > 1:
            shared += 1
            yield any(row.verdict.result is not ComparisonResult.NOT_COMPARABLE for row in metric_rows(records))
    if len(scores) > 1 and not shared:
        yield False


# --- printing --------------------------------------------------------------------------------------------------------


def _print_scores(scores: Scores) -> None:
    for benchmark in _benchmarks(scores):
        columns = [
            ScoreColumn(label=name, record=scored[benchmark]) for name, scored in scores.items() if benchmark in scored
        ]
        out.print(score_table(columns, title=benchmark))


def _print_differences(found: Sequence[Difference]) -> None:
    if not found:
        return
    table = plain_table("second against first", "difference", "95 % interval", "McNemar p", "pairs", "the second is")
    for row in found:
        step = "–" if row.difference is None else f"{row.difference:+.6g}"
        interval = "–" if row.interval is None else " .. ".join(format_together(row.interval))
        p = "–" if row.p is None else f"{row.p:.2g}"
        conclusion = Text(row.conclusion, _STYLES.get(row.conclusion, "yellow"))
        table.add_row(Text(f"{row.benchmark} {row.metric.title}"), step, interval, p, str(row.pairs or "–"), conclusion)
    out.print(table)
    print_reasons((f"{row.benchmark} {row.metric.title}", row.why) for row in found)
    for benchmark in dict.fromkeys(row.benchmark for row in found):
        _print_flips([row for row in found if row.benchmark == benchmark and row.metric.category is None])


def _print_flips(rows: Sequence[Difference]) -> None:
    """The items that flipped, of the first metric of a benchmark that has verdicts."""
    row = next((row for row in rows if row.gained or row.lost), None)
    if row is None:
        return
    for what, items in (("only the second gets right", row.gained), ("only the first gets right", row.lost)):
        more = f" and {len(items) - _SHOWN_ITEMS} more (--json)" if len(items) > _SHOWN_ITEMS else ""
        names = ", ".join(items[:_SHOWN_ITEMS]) or "none"
        out.print(Text(f"{row.benchmark}, {what}: {names}{more}"), soft_wrap=True)


def _score_rows(scores: Scores) -> Iterator[dict[str, Any]]:
    for benchmark in _benchmarks(scores):
        having = {name: scored[benchmark] for name, scored in scores.items() if benchmark in scored}
        names = list(having)
        for row in metric_rows(list(having.values())):
            winner = row.verdict.winner
            yield {
                "benchmark": benchmark,
                "metric": row.name,
                "category": row.category,
                "values": {n: cell.value if cell else None for n, cell in zip(names, row.cells, strict=True)},
                "result": row.verdict.result.value,
                "better": None if winner is None else names[winner],
                "reason": row.verdict.reason,
                "note": row.note,
            }


def _as_row(row: Difference) -> dict[str, Any]:
    named = {"metric": row.metric.name, "category": row.metric.category, "difference": row.difference}
    return {**vars(row), **named}


# --- runs ------------------------------------------------------------------------------------------------------------


def _scores(runs: Sequence[api.Run]) -> dict[str, Mapping[str, ScoreRecord]]:
    """The scores of different runs, by the shortest names that tell them apart."""
    found = {run.folder.resolve(): run for run in runs}
    return dict(zip(_distinct_names(list(found)), (run.scores for run in found.values()), strict=True))


def _benchmarks(scores: Scores) -> list[str]:
    return list(dict.fromkeys(name for scored in scores.values() for name in scored))


def _distinct_names(folders: Sequence[Path]) -> list[str]:
    """The shortest ends of different absolute paths that tell them apart."""
    by_length = (["/".join(folder.parts[-length:]) for folder in folders] for length in itertools.count(1))
    return next(names for names in by_length if len(set(names)) == len(folders))
