from __future__ import annotations

import dataclasses

import pytest

from gear.bench.demo import FULL, QUICK, Budget, demo_plan
from harness.catalog.benchmarks import Catalog
from harness.catalog.project import find_project
from harness.planning.steps import OutputOf, Plan


@pytest.fixture(scope="module")
def plan() -> Plan:
    project = find_project()
    return demo_plan(project, Catalog.load(project), QUICK)


def test_both_models_start_from_one_tokenizer_and_get_as_many_ar_updates(plan: Plan) -> None:
    gear, baseline = plan.step("gear-e2e"), plan.step("baseline-ar")
    assert gear.inputs["init.pt"] == baseline.inputs["tokenizer.pt"] == OutputOf("tokenizer", "model.pt")
    assert f"stages.e2e.steps={QUICK.e2e}" in gear.argv
    assert f"stages.ar.steps={QUICK.ar}" in plan.step("gear-ar").argv
    assert f"stages.ar.steps={QUICK.e2e + QUICK.ar}" in baseline.argv


def test_both_models_draw_the_same_requests_and_are_scored_alike(plan: Plan) -> None:
    gear, baseline = plan.step("gear-samples"), plan.step("baseline-samples")
    assert gear.inputs["requests"] == baseline.inputs["requests"]
    assert gear.argv == baseline.argv
    scores = [plan.step(f"{prefix}-score") for prefix in ("gear", "baseline")]
    assert scores[0].argv == scores[1].argv
    assert [score.inputs["samples"] for score in scores] == [OutputOf("gear-samples"), OutputOf("baseline-samples")]
    assert {score.inputs["assets/demo-digits"] for score in scores} == {OutputOf("digits")}


def test_another_budget_changes_only_what_it_concerns(plan: Plan) -> None:
    project = find_project()
    longer = demo_plan(project, Catalog.load(project), dataclasses.replace(QUICK, ar=QUICK.ar + 1))
    changed = {step.name for step in plan.steps if longer.step(step.name).argv != step.argv}
    assert changed == {"gear-ar", "baseline-ar"}


@pytest.mark.parametrize("budget", [FULL, QUICK])
def test_a_budget_has_at_least_ten_images_of_every_class(budget: Budget) -> None:
    assert budget.images >= 100
