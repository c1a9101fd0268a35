"""The same content for the terminal, as rich tables. Strings from outside become `Text`: their markup has no effect."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from harness.contract.progress import format_seconds
from harness.contract.record import ScoreRecord
from harness.report.compare import ComparisonResult, MetricRow, metric_rows, value_of
from harness.report.formats import format_count, format_interval, format_together, format_value, plural
from harness.report.sections import ScoreColumn
from harness.store.run_record import RunRecord, StepResult

KEY_DIGITS = 12
NUM_HEADLINES = 3
NOT_RUN = ("skipped", "waiting")
STATUS_STYLES = {
    "cached": "cyan",
    "run": "green",
    "resumed": "green",
    "finished": "green",
    "partly": "yellow",
    "running": "yellow",
    "interrupted": "yellow",
    "failed": "bold red",
    "skipped": "dim",
    "waiting": "dim",
}


def score_table(columns: Sequence[ScoreColumn], title: str = "") -> Table:
    """Scores of one benchmark; with several columns, the better value is bold and a last column names its model."""
    table = _table(title)
    table.add_column("metric")
    for column in columns:
        table.add_column(Text(column.label), justify="right")
    table.add_column("95 % interval" if len(columns) == 1 else "better")
    table.add_column("n", justify="right")
    records = [column.record for column in columns]
    rows = metric_rows(records)
    for row in rows:
        table.add_row(_metric_name(row), *_values(row), _last_words(row, columns), _count(row))
    notes = [Text(note, style="yellow") for note in dict.fromkeys(row.note for row in rows) if note]
    unscored = _unscored_caption(columns)
    table.caption = Text("\n").join([unscored, *notes] if unscored else notes) if unscored or notes else None
    return table


def steps_table(steps: Iterable[StepResult], title: str = "") -> Table:
    """The steps of a run: what happened to each, how long it took, and the key of its output."""
    table = _table(title)
    for name in ("step", "kind", "status"):
        table.add_column(name)
    table.add_column("time", justify="right")
    table.add_column("key")
    for step in steps:
        seconds = step.computed_s if step.status == "cached" else step.seconds
        time = "" if step.status in NOT_RUN else format_seconds(seconds)
        status = Text(step.status, style=STATUS_STYLES.get(step.status, ""))
        key = Text((step.key or "")[:KEY_DIGITS], style="dim")
        table.add_row(Text(step.name), Text(step.kind), status, Text(time), key)
    return table


def runs_table(runs: Iterable[tuple[RunRecord, Mapping[str, ScoreRecord]]], title: str = "") -> Table:
    """The list of runs with their scores by benchmark, as `harness ls` prints it."""
    table = _table(title)
    for name in ("run", "started", "status", "scores"):
        table.add_column(name)
    for record, scores in runs:
        status = Text(record.status, style=STATUS_STYLES.get(record.status, ""))
        headlines = "\n".join(headline(score) for score in scores.values())
        table.add_row(Text(record.run, style="bold"), Text(record.started), status, Text(headlines))
    return table


def headline(score: ScoreRecord) -> str:
    """The first numbers of a score in one line: `adm: gFID 3.94, sFID 6.02, IS 241.3`."""
    overall = [metric for metric in score.metrics if metric.category is None] or list(score.metrics)
    values = [f"{metric.label or metric.name} {format_value(value_of(metric))}" for metric in overall[:NUM_HEADLINES]]
    return f"{score.benchmark}: {', '.join(values) or 'no metric'}"


def _table(title: str) -> Table:
    heading = Text(title) if title else None
    return Table(title=heading, title_justify="left", caption_justify="left", box=box.SIMPLE_HEAD)


def _metric_name(row: MetricRow) -> Text:
    unit = f" ({row.any_metric.unit})" if row.any_metric.unit else ""
    category = f"  {row.category}" if row.category else ""
    return Text.assemble(row.title, (f" {row.arrow}", "dim"), (unit + category, "dim"))


def _values(row: MetricRow) -> list[Text]:
    formatted = iter(format_together([value_of(cell) for cell in row.cells if cell is not None]))
    texts = ["–" if cell is None else next(formatted) for cell in row.cells]
    return [Text(text, style="bold green" if i == row.verdict.winner else "") for i, text in enumerate(texts)]


def _last_words(row: MetricRow, columns: Sequence[ScoreColumn]) -> Text:
    if row.verdict.result is ComparisonResult.SINGLE:
        return Text(format_interval(row.any_metric.interval, like=_values(row)[0].plain))
    if row.verdict.winner is not None:
        return Text(columns[row.verdict.winner].label)
    return Text(row.verdict.reason or row.verdict.result.value, style="dim")


def _count(row: MetricRow) -> str:
    return " / ".join(dict.fromkeys(format_count(cell.n) for cell in row.cells if cell is not None))


def _unscored_caption(columns: Sequence[ScoreColumn]) -> Text | None:
    parts = [
        f"{column.label}: {plural(len(column.record.unscored), 'item')} not scored (neither zeros nor in n)"
        for column in columns
        if column.record.unscored
    ]
    return Text("; ".join(parts), style="yellow") if parts else None
