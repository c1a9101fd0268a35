from __future__ import annotations

import io
from collections.abc import Callable

from rich.console import Console
from rich.table import Table

from harness.contract.record import Metric, ScoreRecord, Unscored
from harness.report.sections import ScoreColumn
from harness.report.table import headline, runs_table, score_table, steps_table
from harness.store.run_record import RunRecord, StepResult

MakeMetric = Callable[..., Metric]
MakeRecord = Callable[..., ScoreRecord]


def show(table: Table, *, colour: bool = False) -> str:
    console = Console(file=io.StringIO(), width=160, force_terminal=colour, color_system="standard" if colour else None)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def columns(*records: ScoreRecord) -> list[ScoreColumn]:
    return [ScoreColumn(label=name, record=record) for name, record in zip(("GEAR", "base"), records, strict=False)]


def test_the_better_score_is_bold_and_named(make_record: MakeRecord) -> None:
    text = show(score_table(columns(make_record(("fid", 4.0, False)), make_record(("fid", 3.0, False)))), colour=True)
    assert "\x1b[1;32m3.00" in text
    assert "\x1b[1;32m4.00" not in text
    assert text.count("base") == 2


def test_a_difference_within_the_interval_is_said(make_record: MakeRecord, metric: MakeMetric) -> None:
    one = make_record(metric("acc", 0.8, True, interval=(0.7, 0.9)))
    assert "within the interval" in show(score_table(columns(one, make_record(("acc", 0.85, True)))))


def test_one_score_shows_its_interval_unit_and_count(make_record: MakeRecord, metric: MakeMetric) -> None:
    record = make_record(metric("psnr", 20.5, True, interval=(20.1, 20.9), unit="dB"))
    text = show(score_table(columns(record), title="recon"))
    for part in ("recon", "psnr ↑ (dB)", "20.50", "[20.10, 20.90]", "2,000"):
        assert part in text


def test_unscored_items_are_stated_under_the_table(make_record: MakeRecord) -> None:
    record = make_record(("a", 1.0, True), unscored=[Unscored(id="1", reason_class="timeout", reason="x")])
    assert "GEAR: 1 item not scored" in show(score_table(columns(record)))


def test_a_missing_number_is_not_zero(make_record: MakeRecord) -> None:
    assert "not a number" in show(score_table(columns(make_record(("is", None, True)))))


def test_steps_show_how_they_came_about() -> None:
    steps = [
        StepResult(name="sample-adm", kind="sample", status="cached", key="ab" * 32, seconds=0.1, computed_s=3600.0),
        StepResult(name="score-[red]adm[/red]", kind="score", status="failed", seconds=12.3),
        StepResult(name="score-dpg", kind="score", status="waiting"),
    ]
    text = show(steps_table(steps))
    assert "1 h 00 min" in text
    assert "abababababab " in text
    assert "score-[red]adm[/red]" in text
    assert "0.00 s" not in text


def test_runs_are_listed_with_their_scores(make_record: MakeRecord) -> None:
    record = RunRecord(
        run="gear-[red]xl[/red]", status="finished", plan_digest="0" * 64, started="2026-01-02T03:04:05Z"
    )
    score = make_record(("gfid", 3.94, False), ("is", None, True), benchmark="adm")
    text = show(runs_table([(record, {"adm": score})]))
    for part in ("gear-[red]xl[/red]", "2026-01-02", "finished", "adm: gfid 3.94, is not a number"):
        assert part in text


def test_a_headline_is_short(make_record: MakeRecord) -> None:
    record = make_record(*[(f"m{i}", float(i), True) for i in range(9)], benchmark="adm")
    assert headline(record) == "adm: m0 0.000, m1 1.000, m2 2.00"
    assert headline(make_record()) == "demo: no metric"


def test_a_status_nobody_knows_is_shown_as_it_is() -> None:
    step = StepResult(name="score-adm", kind="score", status="paused")  # type: ignore[arg-type]
    record = RunRecord(run="gear", status="paused", plan_digest="0" * 64)  # type: ignore[arg-type]
    assert "paused" in show(steps_table([step])) and "paused" in show(runs_table([(record, {})]))
