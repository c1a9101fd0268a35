from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from gear.bench.training_curves import training_curves
from harness.contract.errors import UserError
from harness.report.html import Report

WriteLog = Callable[..., Path]


def test_only_logged_quantities_get_a_panel(falling_log: WriteLog) -> None:
    section = training_curves({"GEAR": [falling_log("a", 2.0)], "base": [falling_log("b", 1.0)]})
    assert [panel.title for panel in section.panels] == ["Next-token loss"]


def test_a_head_start_over_the_baseline_is_reported(falling_log: WriteLog) -> None:
    logs = {"GEAR": [falling_log("a", 2.0)], "base": [falling_log("b", 1.0)]}
    (sentence,) = training_curves(logs, baseline="base").findings
    assert sentence.startswith("GEAR reaches the next-token loss that base ends with")
    assert sentence.endswith("times sooner.")


def test_falling_behind_the_baseline_is_reported_too(falling_log: WriteLog) -> None:
    logs = {"GEAR": [falling_log("a", 0.5)], "base": [falling_log("b", 1.0)]}
    (sentence,) = training_curves(logs, baseline="base").findings
    assert "does not reach" in sentence


def test_a_frozen_quantity_is_a_horizontal_line(write_log: WriteLog) -> None:
    logs = {"GEAR": [write_log([{"step": 1, "codebook_usage": 0.5}], name="a")], "base": [write_log([], name="b")]}
    section = training_curves(logs, levels={"codebook_usage": {"base": 0.7}})
    (panel,) = section.panels
    assert [series.label for series in panel.series] == ["GEAR"]
    assert [(level.label, level.value) for level in panel.levels] == [("base", 0.7)]


def test_empty_logs_make_a_section_that_says_so(write_log: WriteLog) -> None:
    section = training_curves({"GEAR": [write_log([])]}, baseline="GEAR")
    assert "No training curve was recorded." in Report(title="t", sections=(section,)).render()


def test_a_missing_log_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="gone"):
        training_curves({"GEAR": [tmp_path / "gone.jsonl"]})
