from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from harness.contract.errors import UserError
from harness.report.curves import Curve, head_start, joined, read_curve, smooth, step_reaching

WriteLog = Callable[..., Path]


def test_a_curve_is_read_by_key(write_log: WriteLog) -> None:
    log = write_log([{"step": 1, "ce_loss": 6.0, "other": 1}, {"step": 2, "other": 1}, {"step": 3, "ce_loss": 5}])
    curve = read_curve(log, "ce_loss")
    assert curve.steps.tolist() == [1, 3]
    assert curve.values.tolist() == [6, 5]
    assert curve.end == 3


def test_a_torn_last_line_is_passed_over(write_log: WriteLog) -> None:
    curve = read_curve(write_log([{"step": 1, "ce_loss": 6.0}], torn='{"step": 2, "ce_lo'), "ce_loss")
    assert (curve.steps.tolist(), curve.unreadable_lines) == ([1], 0)


def test_an_unreadable_line_in_the_middle_is_counted(write_log: WriteLog) -> None:
    log = write_log([{"step": 1, "ce_loss": 6.0}], torn='{"step": 2, "ce_{"step": 3}\n{"step": 4, "ce_loss": 5}\n')
    curve = read_curve(log, "ce_loss")
    assert (curve.steps.tolist(), curve.unreadable_lines) == ([1, 4], 1)


def test_a_step_logged_twice_counts_once_and_the_later_line_wins(write_log: WriteLog) -> None:
    log = write_log([{"step": 1, "x": 9.0}, {"step": 2, "x": 8.0}, {"step": 1, "x": 1.0}])
    assert read_curve(log, "x").values.tolist() == [1.0, 8.0]


def test_one_phase_can_be_picked(write_log: WriteLog) -> None:
    log = write_log([{"step": 1, "phase": "tokenizer", "x": 9.0}, {"step": 2, "phase": "e2e", "x": 8.0}])
    assert read_curve(log, "x", phase="e2e").steps.tolist() == [2]


def test_the_x_axis_can_count_images(write_log: WriteLog) -> None:
    log = write_log([{"step": 1, "images_seen": 64, "x": 9.0}, {"step": 2, "x": 8.0}])
    assert read_curve(log, "x", x="images_seen").steps.tolist() == [64]


@pytest.mark.parametrize("text", ["NaN", "null", '"diverged"'])
def test_what_is_no_number_is_kept_as_nan(tmp_path: Path, text: str) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text('{"step": 1, "x": ' + text + "}\n")
    assert math.isnan(read_curve(log, "x").values[0])


def test_an_empty_log_is_an_empty_curve(write_log: WriteLog) -> None:
    curve = read_curve(write_log([]), "ce_loss")
    assert len(curve) == 0
    assert math.isnan(curve.last)


def test_a_missing_log_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.jsonl"):
        read_curve(tmp_path / "gone.jsonl", "ce_loss")


def test_stages_follow_each_other_even_where_the_first_did_not_log_the_key(write_log: WriteLog) -> None:
    first = read_curve(write_log([{"step": 1}, {"step": 50}], name="a"), "x")
    second = read_curve(write_log([{"step": 1, "x": 3.0}, {"step": 10, "x": 2.0}], name="b"), "x")
    curve = joined([first, second])
    assert (curve.steps.tolist(), curve.end) == ([51, 60], 60)


def test_smoothing_is_the_weighted_mean_it_claims_to_be() -> None:
    values = np.random.default_rng(0).random(31)
    keep = 1 - 2 / 6
    for i, smoothed in enumerate(smooth(values, span=5)):
        seen = np.arange(min(2 * i + 1, 31))
        weights = keep ** np.abs(seen - i)
        assert smoothed == pytest.approx(np.average(values[seen], weights=weights))


def test_smoothing_starts_where_the_log_starts_and_keeps_a_constant() -> None:
    values = np.linspace(9.0, 1.0, 100)
    assert smooth(values)[0] == pytest.approx(9.0)
    assert smooth(np.full(100, 2.5)) == pytest.approx(np.full(100, 2.5))


def test_smoothing_passes_over_nan() -> None:
    values = np.full(60, 2.0)
    values[20] = math.nan
    assert smooth(values) == pytest.approx(np.full(60, 2.0))


def test_short_curves_are_not_smoothed() -> None:
    values = np.array([3.0, 1.0, 2.0])
    assert smooth(values).tolist() == [3.0, 1.0, 2.0]
    assert smooth(np.empty(0)).tolist() == []


def test_the_step_that_reaches_a_target_is_found() -> None:
    curve = Curve(steps=np.array([10.0, 20.0, 30.0]), values=np.array([3.0, 2.0, 1.0]))
    assert step_reaching(curve, 2.0) == 20
    assert step_reaching(curve, 0.5) is None


def ramp(*values: float) -> Curve:
    return Curve(steps=np.arange(10.0, 10.0 * len(values) + 1, 10.0), values=np.array(values))


def test_a_head_start_is_stated_with_its_factor() -> None:
    sentence = head_start("GEAR", ramp(3, 1, 0.5, 0.4), "base", ramp(4, 3, 2, 1), "loss")
    assert sentence == "GEAR reaches the loss that base ends with (1.000 at step 40) at step 20, 2.0 times sooner."


def test_a_model_that_is_slower_is_called_slower() -> None:
    assert "does not reach" in head_start("GEAR", ramp(4, 3, 2, 1.5), "base", ramp(4, 3, 2, 1), "loss")
    assert "no sooner, at step 40" in head_start("GEAR", ramp(4, 3, 2, 1), "base", ramp(4, 3, 2, 1), "loss")


def test_a_head_start_needs_two_curves() -> None:
    assert head_start("GEAR", Curve(), "base", ramp(1), "loss") == ""
    assert head_start("GEAR", ramp(1), "base", Curve(), "loss") == ""
