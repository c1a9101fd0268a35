from __future__ import annotations

import dataclasses
import math

import pytest

from harness.catalog.assets import Asset, AssetStore
from harness.contract.errors import UserError
from harness.contract.record import Metric, ScoreRecord
from harness.planning.check import check_plan, compare_with_expected, full_check_plan
from harness.planning.steps import Document


def record(value: float | None) -> ScoreRecord:
    metric = Metric(name="m", value=value, higher_is_better=True, n=1)
    return ScoreRecord(benchmark="toy", benchmark_version=1, metrics=[metric])


def compare(toy, value: float | None, expected: dict[str, object]) -> bool:
    benchmark = dataclasses.replace(toy.catalog.benchmark("toy"), check={"expected": {"m": expected}})
    (row,) = compare_with_expected(benchmark, record(value))
    return row.passed


@pytest.mark.parametrize(
    ("value", "expected", "passes"),
    [
        (1.0, {"value": 1.0, "abs": 0.0}, True),
        (1.01, {"value": 1.0, "abs": 0.02}, True),
        (1.03, {"value": 1.0, "abs": 0.02}, False),
        (-101.0, {"value": -100.0, "rel": 0.02}, True),
        (-103.0, {"value": -100.0, "rel": 0.02}, False),
        (0.893, {"any_of": [0.887, 0.893], "abs": 0.001}, True),
        (0.890, {"any_of": [0.887, 0.893], "abs": 0.001}, False),
        (None, {"value": 1.0, "abs": 9.0}, False),
        (math.nan, {"value": 1.0, "abs": 9.0}, False),
    ],
)
def test_a_number_passes_when_it_is_near_enough(toy, value, expected, passes: bool):
    assert compare(toy, value, expected) is passes


@pytest.mark.parametrize("expected", [{}, {"value": 1.0}, {"abs": 1.0}, {"value": "x", "abs": 1.0}])
def test_an_expectation_without_value_or_tolerance_is_refused(toy, expected):
    with pytest.raises(UserError, match=r"check\.expected\.m"):
        compare(toy, 1.0, expected)


def test_the_shipped_assets_take_the_place_of_the_real_ones(toy):
    plan, overrides = check_plan(toy.catalog.benchmark("toy"))
    assert plan.name == "check-toy" and [step.name for step in plan.steps] == ["samples", "score-toy"]
    assert overrides == {"toy-reference": str(toy.root / "benchmarks/toy/check/assets/toy-reference")}


def test_a_check_can_be_asked_of_other_options(toy):
    plan, _ = check_plan(toy.catalog.benchmark("toy"), {"refuse": 1})
    assert plan.step("score-toy").inputs["options.json"] == Document({"scale": 2.0, "refuse": 1})


def test_a_benchmark_without_a_case_says_so(toy):
    with pytest.raises(UserError, match="has no 'check:'"):
        check_plan(dataclasses.replace(toy.catalog.benchmark("toy"), check={}))


def test_the_full_check_scores_the_public_batch_that_the_benchmark_names(toy):
    (toy.root / "batch.npz").touch()
    case = {"full": {"samples": "toy-batch", "expected": {"m": {"value": 1.0, "abs": 0.1}}}}
    benchmark = dataclasses.replace(toy.catalog.benchmark("toy"), check=case)
    listed = {"toy-batch": Asset(name="toy-batch", file="batch.npz")}
    store = AssetStore(toy.root / "assets", listed, toy.setting().memo, {"toy-batch": toy.root / "batch.npz"})
    plan = full_check_plan(benchmark, store)
    assert plan.name == "check-toy-full"
    assert [step.name for step in plan.steps] == ["samples", "score-toy"]
    (row,) = compare_with_expected(benchmark, record(1.05), full=True)
    assert row.passed


def test_the_full_check_needs_a_batch_and_says_which(toy):
    with pytest.raises(UserError, match="has no public batch"):
        full_check_plan(toy.catalog.benchmark("toy"), toy.setting().assets)
