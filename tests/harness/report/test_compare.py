from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from harness.contract.record import Metric, ScoreRecord
from harness.report.compare import ComparisonResult, judge, metric_rows, summary

MakeMetric = Callable[..., Metric]
MakeRecord = Callable[..., ScoreRecord]


def test_the_lower_fid_wins(metric: MakeMetric) -> None:
    assert judge([metric("gfid", 4.0, False), metric("gfid", 3.0, False)]).winner == 1


def test_the_higher_score_wins(metric: MakeMetric) -> None:
    assert judge([metric("is", 4.0, True), metric("is", 3.0, True)]).winner == 0


def test_equal_values_are_a_tie(metric: MakeMetric) -> None:
    verdict = judge([metric("is", 4.0, True), metric("is", 4.0, True)])
    assert (verdict.result, verdict.winner) == (ComparisonResult.TIE, None)


@pytest.mark.parametrize("higher_is_better", [True, False])
def test_overlapping_intervals_have_no_winner(metric: MakeMetric, higher_is_better: bool) -> None:
    one = metric("acc", 0.80, higher_is_better, interval=(0.78, 0.82))
    other = metric("acc", 0.83, higher_is_better, interval=(0.81, 0.85))
    verdict = judge([one, other])
    assert (verdict.result, verdict.winner) == (ComparisonResult.WITHIN_INTERVAL, None)
    assert verdict.leader == int(higher_is_better)


def test_separate_intervals_have_a_winner(metric: MakeMetric) -> None:
    one, other = metric("acc", 0.8, True, interval=(0.78, 0.82)), metric("acc", 0.9, True, interval=(0.88, 0.92))
    assert judge([one, other]).winner == 1


def test_touching_intervals_overlap(metric: MakeMetric) -> None:
    one, other = metric("acc", 0.8, True, interval=(0.78, 0.82)), metric("acc", 0.84, True, interval=(0.82, 0.86))
    assert judge([one, other]).result is ComparisonResult.WITHIN_INTERVAL


def test_a_bare_value_inside_the_others_interval_does_not_lose(metric: MakeMetric) -> None:
    one, other = metric("acc", 0.8, True), metric("acc", 0.82, True, interval=(0.79, 0.85))
    assert judge([one, other]).result is ComparisonResult.WITHIN_INTERVAL


def test_the_best_of_three_must_beat_the_second(metric: MakeMetric) -> None:
    low, mid = metric("acc", 0.5, True, interval=(0.4, 0.6)), metric("acc", 0.8, True, interval=(0.7, 0.9))
    top = metric("acc", 0.85, True, interval=(0.75, 0.95))
    assert judge([low, mid, top]).result is ComparisonResult.WITHIN_INTERVAL


def test_a_value_that_is_not_a_number_neither_wins_nor_loses(metric: MakeMetric) -> None:
    verdict = judge([metric("is", None, True), metric("is", 3.0, True)])
    assert verdict.result is ComparisonResult.NOT_COMPARABLE
    assert "not a number" in verdict.reason


def test_a_metric_that_one_model_lacks_is_not_compared(metric: MakeMetric) -> None:
    assert judge([metric("is", 3.0, True), None]).result is ComparisonResult.NOT_COMPARABLE


def test_different_units_are_not_compared(metric: MakeMetric) -> None:
    verdict = judge([metric("acc", 0.9, True), metric("acc", 90.0, True, unit="%")])
    assert verdict.result is ComparisonResult.NOT_COMPARABLE


def test_very_different_counts_are_not_compared(metric: MakeMetric) -> None:
    verdict = judge([metric("gfid", 4.0, False, n=50_000), metric("gfid", 9.0, False, n=5_000)])
    assert "50,000 and 5,000" in verdict.reason


def test_a_few_unscored_items_do_not_prevent_a_comparison(metric: MakeMetric) -> None:
    assert judge([metric("acc", 0.9, True, n=2000), metric("acc", 0.8, True, n=1990)]).winner == 0


@pytest.mark.parametrize("other", ["50,000 of 512 x 512 px", "50,176 of 256 x 256 px"])
def test_images_of_other_number_or_size_are_not_compared(make_record: MakeRecord, other: str) -> None:
    record, usual = make_record(("gfid", 3.0, False)), "50,000 of 256 x 256 px"
    one, two, same = (dataclasses.replace(record, images={"samples": text}) for text in (usual, other, usual))
    assert metric_rows([one, two])[0].verdict.reason == f"measured on other images: samples ({usual} and {other})"
    assert metric_rows([one, same])[0].verdict.result is ComparisonResult.TIE
    assert metric_rows([one, record])[0].verdict.result is ComparisonResult.TIE  # an older record does not say


def test_versions_of_a_benchmark_are_not_compared(make_record: MakeRecord) -> None:
    rows = metric_rows([make_record(("is", 3.0, True)), make_record(("is", 4.0, True), version=2)])
    assert rows[0].verdict.result is ComparisonResult.NOT_COMPARABLE
    assert "version 1 and demo version 2" in rows[0].verdict.reason


REFERENCE = "asset:adm-imagenet256-reference"


def test_other_assets_are_not_compared_and_are_named(make_record: MakeRecord) -> None:
    one, other = (make_record(("gfid", v, False), digests={REFERENCE: d * 64}) for v, d in ((3.0, "a"), (9.0, "b")))
    (row,) = metric_rows([one, other])
    assert row.verdict.result is ComparisonResult.NOT_COMPARABLE
    assert row.verdict.reason == f"measured with different {REFERENCE}"
    assert metric_rows([one, one])[0].verdict.result is ComparisonResult.TIE
    assert REFERENCE in metric_rows([one, make_record(("gfid", 4.0, False))])[0].verdict.reason


def test_the_digests_of_what_is_compared_may_differ(make_record: MakeRecord) -> None:
    one, other = (
        make_record(("gfid", v, False), digests={"samples": d * 64, "requests": d * 64, REFERENCE: "c" * 64})
        for v, d in ((3.0, "a"), (9.0, "b"))
    )
    assert metric_rows([one, other])[0].verdict.winner == 0


def test_other_options_are_not_compared_and_are_named_with_their_values(make_record: MakeRecord) -> None:
    one = make_record(("gfid", 3.0, False), options={"manifold_k": 3, "distances": "float16", "batch_size": 64})
    other = make_record(("gfid", 9.0, False), options={"manifold_k": 30, "distances": "tensorflow", "batch_size": 8})
    (row,) = metric_rows([one, other])
    assert row.verdict.result is ComparisonResult.NOT_COMPARABLE
    assert row.verdict.reason == "measured with different distances (float16 and tensorflow) and manifold_k (3 and 30)"


def test_options_that_do_not_change_the_metric_may_differ(make_record: MakeRecord) -> None:
    one = make_record(("gfid", 3.0, False), options={"batch_size": 64, "duplicates": "refuse", "manifold_k": 3})
    other = make_record(("gfid", 9.0, False), options={"batch_size": 8, "duplicates": "allow", "newer": 1})
    assert metric_rows([one, other])[0].verdict.winner == 0


def test_another_backend_is_compared_with_a_note(make_record: MakeRecord) -> None:
    records = [make_record(("gfid", 3.0, False), options={"backend": name}) for name in ("tensorflow", "torch")]
    older = dataclasses.replace(records[0], options={})
    (row,) = metric_rows(records)
    assert row.verdict.result is ComparisonResult.TIE
    assert row.note == "The numbers were computed with different backend (tensorflow and torch)."
    assert metric_rows([older, records[0]])[0].note == ""


def test_another_cfg_is_compared_with_a_note(make_record: MakeRecord) -> None:
    one, other = (make_record(("gfid", v, False), protocol={"cfg_scale": c}) for v, c in ((3.0, 1.0), (9.0, 1.5)))
    rows = metric_rows([one, other])
    assert rows[0].verdict.winner == 0
    note = "The images were drawn with different cfg_scale (1.0 and 1.5)."
    assert rows[0].note == note
    assert summary(["a", "b"], rows)[-1] == note
    assert metric_rows([one, one])[0].note == ""
    assert metric_rows([one, make_record(("gfid", 4.0, False))])[0].note.startswith("Not every record says how")


def test_rows_keep_the_order_and_categories_apart(make_record: MakeRecord, metric: MakeMetric) -> None:
    first = make_record(("acc", 0.5, True), metric("acc", 0.4, True, category="counting"))
    second = make_record(("extra", 1.0, True), ("acc", 0.6, True))
    rows = metric_rows([first, second])
    assert [(row.name, row.category) for row in rows] == [("acc", None), ("acc", "counting"), ("extra", None)]
    assert rows[1].cells[1] is None


def test_one_model_alone_is_not_judged(make_record: MakeRecord) -> None:
    rows = metric_rows([make_record(("is", 3.0, True))])
    assert rows[0].verdict.result is ComparisonResult.SINGLE
    assert summary(["a"], rows) == []


def test_the_summary_also_says_where_the_first_model_loses(make_record: MakeRecord) -> None:
    ours = make_record(("fid", 4.0, False), ("is", 100.0, True), ("psnr", 20.0, True))
    theirs = make_record(("fid", 3.0, False), ("is", 90.0, True), ("psnr", 20.0, True))
    assert summary(["GEAR", "base"], metric_rows([ours, theirs])) == [
        "Of 3 metrics, GEAR is better on 1: is ↑ (100.0 against 90.0); base is better on 1: fid ↓ (3.00 against 4.00).",
        "No difference on psnr.",
    ]


def test_the_summary_says_who_wins_nothing(make_record: MakeRecord) -> None:
    rows = metric_rows([make_record(("fid", 4.0, False)), make_record(("fid", 3.0, False))])
    assert summary(["GEAR", "base"], rows) == [
        "Of 1 metric, base is better on 1: fid ↓ (3.00 against 4.00); GEAR on none."
    ]


def test_the_summary_says_when_nobody_wins(make_record: MakeRecord, metric: MakeMetric) -> None:
    ours = make_record(metric("acc", 0.8, True, interval=(0.7, 0.9)), ("is", None, True))
    theirs = make_record(metric("acc", 0.82, True, interval=(0.7, 0.9)), ("is", 3.0, True))
    assert summary(["GEAR", "base"], metric_rows([ours, theirs])) == [
        "No model is clearly better on any of 2 metrics.",
        "On acc the difference lies within the interval, so no model is better.",
        "is cannot be compared: a value is not a number.",
    ]


def test_the_summary_counts_whole_benchmarks_not_categories(make_record: MakeRecord, metric: MakeMetric) -> None:
    ours = make_record(("acc", 0.5, True), metric("acc", 0.1, True, category="counting"))
    theirs = make_record(("acc", 0.4, True), metric("acc", 0.9, True, category="counting"))
    assert summary(["GEAR", "base"], metric_rows([ours, theirs]))[0].startswith("Of 1 metric, GEAR is better on 1")
