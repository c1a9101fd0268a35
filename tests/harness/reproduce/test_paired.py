"""`harness compare A B`: item by item where the prompts and seeds are the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from harness.cli import main
from harness.contract.errors import EXIT_DEFECT, EXIT_NOT_COMPARABLE, EXIT_OK, EXIT_USAGE
from harness.running.execute import run_plan


def harness(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words], env={"COLUMNS": "240"})


def run(toy, name: str, **request: object) -> Path:
    _, folder = run_plan(toy.plan(**request), toy.setting(), run_id=name)
    return folder


@pytest.fixture
def pair(toy) -> None:
    """The second is a brighter model, on the same labels and seeds."""
    run(toy, "first")
    toy.edit("my_model.py", "integers(0, 256", "integers(64, 256")
    run(toy, "second")


def row_of(result: Result) -> dict[str, object]:
    rows = json.loads(result.stdout)["differences"]
    assert len(rows) == 1
    return dict(rows[0])


def test_the_difference_of_two_runs_has_a_paired_interval(pair):
    result = harness("compare", "first", "second", "--json")
    row = row_of(result)
    assert result.exit_code == EXIT_OK
    assert row["conclusion"] == "better" and row["pairs"] == 12
    low, high = row["interval"]  # type: ignore[misc]
    assert 0 < low < row["difference"] < high < 64
    assert row["p"] is None and row["gained"] == []
    assert "better" in harness("compare", "first", "second").output


def test_the_other_way_round_it_is_worse_and_a_gate_fails(pair):
    assert row_of(harness("compare", "second", "first", "--json"))["conclusion"] == "worse"
    assert harness("compare", "first", "second", "--fail-if-worse").exit_code == EXIT_OK
    result = harness("compare", "second", "first", "--fail-if-worse")
    assert result.exit_code == EXIT_DEFECT and "is worse by" in result.output
    assert harness("compare", "second", "first", "--fail-if-worse", "brightness").exit_code == EXIT_DEFECT
    assert harness("compare", "second", "first", "--fail-if-worse", "brightness:60").exit_code == EXIT_OK
    assert harness("compare", "second", "first", "--fail-if-worse", "brightness:1").exit_code == EXIT_DEFECT


@pytest.mark.parametrize("gate", ["brightnes", "brightness:much", "brightness:-1", "brightness:nan"])
def test_a_wrong_gate_is_named(pair, gate):
    result = harness("compare", "first", "second", "--fail-if-worse", gate)
    assert result.exit_code == EXIT_USAGE and "error:" in result.output


def test_the_protocol_may_differ_between_two_runs_that_pair(toy):
    run(toy, "first")
    run(toy, "guided", protocol={"cfg_scale": 3.0})
    row = row_of(harness("compare", "first", "guided", "--json"))
    assert row["pairs"] == 12 and row["conclusion"] == "the same" and row["interval"] == [0.0, 0.0]


def test_runs_of_other_seeds_do_not_pair_and_one_number_of_each_tells_nothing(toy):
    run(toy, "first")
    run(toy, "other", run_seed=1)
    row = row_of(harness("compare", "first", "other", "--json"))
    assert row["conclusion"] == "cannot be told" and "other seeds" in str(row["why"])
    result = harness("compare", "first", "other", "--fail-if-worse", "brightness")
    assert result.exit_code == EXIT_OK and "State a margin" in result.output


def test_the_spread_over_seeds_tells_where_each_model_has_several_sample_sets(toy):
    for seed in (1, 2):
        run(toy, f"dark{seed}", run_seed=seed)
    toy.edit("my_model.py", "integers(0, 256", "integers(128, 256")
    for seed in (1, 2):
        run(toy, f"light{seed}", run_seed=seed)
    result = harness("compare", "dark1,dark2", "light1,light2", "--json")
    row = row_of(result)
    assert row["conclusion"] == "better" and row["interval"]
    assert harness("compare", "dark1,dark2", "light1").exit_code == EXIT_USAGE
    assert harness("compare", "dark1,dark2").exit_code == EXIT_USAGE


def test_runs_that_do_not_compare_end_with_a_status_of_their_own(toy):
    run(toy, "first")
    run(toy, "doubled", options={"toy": {"scale": 2.0}})
    result = harness("compare", "first", "doubled")
    assert result.exit_code == EXIT_NOT_COMPARABLE
    assert "different scale (1.0 and 2.0)" in result.output
    assert harness("compare", "first", "doubled", "--fail-if-worse", "brightness:1").exit_code == EXIT_NOT_COMPARABLE


def test_a_frozen_run_pairs_with_a_run(pair, toy):
    assert harness("freeze", "first", "--out", "kept").exit_code == EXIT_OK
    assert row_of(harness("compare", "kept", "second", "--json"))["pairs"] == 12


def test_verdicts_that_flipped_are_named_and_tested_by_mcnemar(pair, toy):
    """Right is what is brighter than 128: the second model never loses an image, and the p is that of the flips."""
    toy.edit("benchmarks/toy/recompute.py", 'value=row["value"]', 'value=float(row["value"] > 128)')
    values = {}
    for name in ("first", "second"):
        path = next((toy.runs_dir / name).glob("steps/*-score-toy/output/items.jsonl"))
        values[name] = {row["id"]: row["value"] for row in map(json.loads, path.read_text().splitlines())}
    gained = [item for item, value in values["first"].items() if value <= 128 < values["second"][item]]
    result = harness("compare", "first", "second", "--json")
    row = row_of(result)
    assert gained and row["gained"] == gained and row["lost"] == []
    assert row["p"] == min(1.0, 2 / 2 ** len(gained))
    assert row["conclusion"] == ("better" if len(gained) >= 6 else "cannot be told apart")
    printed = harness("compare", "first", "second").output
    assert f"only the second gets right: {gained[0]}" in printed and "only the first gets right: none" in printed
