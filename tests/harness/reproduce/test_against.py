"""`harness check --against`: the same numbers, others, or none that compare."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from harness.cli import main
from harness.contract.errors import EXIT_DEFECT, EXIT_NOT_COMPARABLE, EXIT_OK, EXIT_USAGE
from harness.contract.files import read_json, write_json


def harness(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words], env={"COLUMNS": "240"})


def run_toy(toy, name: str, *more: object) -> Path:
    process = toy.harness(*toy.run_words(), "--name", name, *more)
    printed, _ = process.communicate()
    assert process.returncode == 0, printed
    return toy.runs_dir / name


@pytest.fixture
def record(toy) -> Path:
    """A frozen run, without the run."""
    run = run_toy(toy, "first")
    assert harness("freeze", run, "--out", "kept").exit_code == 0
    return toy.root / "kept"


def edit(record: Path, **changes: object) -> None:
    """Change the recorded metric of a run or a frozen folder, with the digest that the record has of it."""
    from harness.contract.digest import sha256_file

    path = next(record.glob("steps/*-score-toy/output/score.json")).resolve()
    row = read_json(path)
    row["metrics"][0].update(changes)
    write_json(path, row)
    whole = read_json(record / "record.json")
    whole["steps"][-1]["digest"] = sha256_file(path)
    write_json(record / "record.json", whole)


def test_the_recorded_command_is_run_again_and_gives_the_same(toy, record, capfd):
    shutil.rmtree(toy.runs_dir)
    result = harness("check", "--against", record)
    assert result.exit_code == EXIT_OK, result.output
    assert "equal" in result.output
    assert toy.drawn() == [*range(6)] * 2


def test_a_run_that_is_there_is_taken(toy, record):
    result = harness("check", "first", "--against", record)
    assert result.exit_code == EXIT_OK and "equal" in result.output
    assert toy.drawn() == [*range(6)]


def test_another_number_differs_and_the_message_says_whether_the_images_are_the_same(toy, record):
    edit(record, value=100.0)
    result = harness("check", "first", "--against", record)
    assert result.exit_code == EXIT_DEFECT
    assert "differs" in result.output and "the same images" in result.output


def test_another_number_within_the_recorded_interval_or_a_tolerance_is_taken(toy, record):
    edit(record, value=125.0, interval=[120.0, 130.0])
    result = harness("check", "first", "--against", record)
    assert result.exit_code == EXIT_OK and "within the interval" in result.output
    edit(record, value=125.0, interval=None)
    assert harness("check", "first", "--against", record).exit_code == EXIT_DEFECT
    Path("off.yaml").write_text("toy: {brightness: {rel: 0.1}}\n")
    result = harness("check", "first", "--against", record, "--tolerance", "off.yaml")
    assert result.exit_code == EXIT_OK and "within the tolerance" in result.output


@pytest.mark.parametrize("text", ["toy: {brightnes: {rel: 0.1}}", "toi: {}", "- 1", "toy: {brightness: {rel: wide}}"])
def test_a_wrong_tolerance_file_is_named(toy, record, text):
    Path("off.yaml").write_text(text)
    result = harness("check", "first", "--against", record, "--tolerance", "off.yaml")
    assert result.exit_code == EXIT_USAGE and "error:" in result.output


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--limit", "6"), "different limit (None and 6)"),
        (("--set", "toy.scale=2"), "different scale (1.0 and 2.0)"),
        (("--protocol", "cfg_scale=3"), "drawn with different cfg_scale (1.0 and 3.0)"),
    ],
)
def test_what_does_not_compare_is_said(toy, record, words, reason):
    run_toy(toy, "second", *words)
    result = harness("check", "second", "--against", record)
    assert result.exit_code == EXIT_NOT_COMPARABLE, result.output
    assert reason in result.output


def test_another_reference_does_not_compare(toy, record):
    path = next(record.glob("steps/*-score-toy/output/score.json"))
    row = read_json(path)
    row["digests"]["asset:toy-reference"] = "0" * 64
    write_json(path, row)
    edit(record)
    result = harness("check", "first", "--against", record)
    assert result.exit_code == EXIT_NOT_COMPARABLE and "asset:toy-reference" in result.output


def test_another_seed_is_held_against_the_spread_of_several_records(toy, record):
    for seed in (1, 2, 3):
        run_toy(toy, f"seed{seed}", "--seed", seed)
    assert harness("check", "seed3", "--against", record).exit_code == EXIT_DEFECT
    result = harness("check", "seed3", "--against", record, "--against", "seed1", "--against", "seed2")
    assert result.exit_code == EXIT_OK and "within the spread" in result.output


def test_a_record_made_by_another_program_needs_a_run(toy, record):
    whole = read_json(record / "record.json")
    whole["command"] = [sys.argv[0]]
    write_json(record / "record.json", whole)
    result = harness("check", "--against", record)
    assert result.exit_code == EXIT_USAGE and "harness check RUN --against RECORD" in result.output


def test_a_benchmark_or_a_record_is_named(toy):
    assert harness("check").exit_code == EXIT_USAGE


def test_another_judge_does_not_compare(toy, record):
    shutil.copytree(record, toy.root / "other")
    for folder, judge in ((record, "one"), (toy.root / "other", "two")):
        path = next(folder.glob("steps/*-score-toy/output/score.json"))
        row = read_json(path)
        row["environment"]["judge"] = {"id": judge, "revision": "abc"}
        write_json(path, row)
        edit(folder)
    result = harness("check", "other", "--against", record)
    assert result.exit_code == EXIT_NOT_COMPARABLE
    assert "different judges (one abc and two abc)" in result.output


def test_what_has_changed_around_the_images_is_told_with_a_difference(toy, record):
    edit(record, value=100.0)
    path = next(record.glob("steps/*-score-toy/output/score.json"))
    row = read_json(path)
    row["environment"]["numpy"] = "0.1"
    write_json(path, row)
    edit(record)
    result = harness("check", "first", "--against", record)
    assert result.exit_code == EXIT_DEFECT and "toy: numpy was 0.1, is " in result.output
