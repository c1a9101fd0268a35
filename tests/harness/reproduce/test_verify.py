"""`harness freeze` and `harness verify`: a record holds elsewhere, and whatever was changed in it is named."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from harness.catalog.benchmarks import Catalog, read_recompute
from harness.catalog.project import find_project
from harness.cli import main
from harness.contract.errors import EXIT_DEFECT, EXIT_USAGE
from harness.contract.files import read_json, write_json, write_json_lines
from harness.contract.images import encode_png
from harness.planning.steps import OutputOf
from harness.running.execute import run_plan


def harness(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words], env={"COLUMNS": "240"})


@pytest.fixture
def run(toy) -> Path:
    toy.edit("benchmarks/toy/benchmark.yaml", "image_size: 8", "image_size: 32")
    record = toy.run()
    return toy.runs_dir / record.run


@pytest.fixture
def frozen(toy, run, tmp_path_factory) -> Path:
    """The frozen run on another machine: no run, no store and no samples beside it."""
    result = harness("freeze", run, "--samples", "--out", toy.root / "paper")
    assert result.exit_code == 0, result.output
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "kept"
    shutil.move(toy.root / "paper", elsewhere)
    shutil.rmtree(toy.runs_dir)
    return elsewhere


def edit_score(folder: Path, value: float) -> Path:
    path = next(folder.glob("steps/*-score-toy/output/score.json")).resolve()
    row = read_json(path)
    row["metrics"][0]["value"] = value
    write_json(path, row)
    return path


def edit_item(folder: Path, line: int, value: float) -> Path:
    path = next(folder.glob("steps/*-score-toy/output/items.jsonl")).resolve()
    rows = [json.loads(text) for text in path.read_text().splitlines()]
    rows[line]["value"] = value
    write_json_lines(path, rows)
    return path


def test_a_run_and_its_frozen_folder_hold(run, frozen):
    result = harness("verify", frozen)
    assert result.exit_code == 0, result.output
    assert "changed" not in result.output
    assert "brightness" in result.output and "pixels" in result.output


def test_a_run_folder_holds_by_its_name(toy, run):
    result = harness("verify", run.name)
    assert result.exit_code == 0, result.output


def test_two_scores_of_one_benchmark_are_told_apart(toy):
    plans = toy.plan(), toy.plan(run_seed=1)
    second = [
        dataclasses.replace(
            step,
            name=f"{step.name}-2",
            inputs={
                name: OutputOf(f"{source.step}-2", source.path) if isinstance(source, OutputOf) else source
                for name, source in step.inputs.items()
            },
        )
        for step in plans[1].steps
    ]
    both = dataclasses.replace(plans[0], steps=(*plans[0].steps, *second))
    _, folder = run_plan(both, toy.setting(), run_id="both")
    assert harness("freeze", "both", "--samples", "--out", "kept").exit_code == 0
    shutil.rmtree(folder)
    result = harness("verify", "kept")
    assert result.exit_code == 0, result.output
    assert "score-toy, its samples" in result.output and "score-toy-2, its samples" in result.output


def test_freezing_without_samples_keeps_their_digests_and_says_that_no_pixel_was_looked_at(toy, run):
    assert harness("freeze", run, "--out", "small").exit_code == 0
    small = toy.root / "small"
    assert not list(small.rglob("*.npz")) and list(small.rglob("index.jsonl"))
    assert list(read_json(small / "frozen.json")["samples"]) == ["sample-toy"]
    result = harness("verify", "small")
    assert result.exit_code == 0
    assert "the images are not in the folder" in result.output


def test_a_changed_pixel_is_named(frozen):
    path = next(frozen.rglob("samples.npz"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1  # far from the header
    path.write_bytes(data)
    result = harness("verify", frozen)
    assert result.exit_code == EXIT_DEFECT
    assert re.search(r"samples.npz, image \d+: does not match its hash", result.output)


def test_a_changed_item_is_named_by_its_line_and_id_and_by_the_metric_it_moves(frozen):
    edit_item(frozen, 3, 1.0)
    result = harness("verify", frozen)
    assert result.exit_code == EXIT_DEFECT
    assert "line 4 (toy/000003)" in result.output
    assert "the items give" in result.output


def test_a_changed_score_is_named_with_the_value_that_the_items_give(frozen):
    edit_score(frozen, 3.0)
    result = harness("verify", frozen)
    assert result.exit_code == EXIT_DEFECT
    assert "score.json says 3.0" in result.output


def test_a_score_that_was_changed_with_every_digest_of_it_is_found_by_its_items(frozen):
    from harness.contract.digest import sha256_file

    digest = sha256_file(edit_score(frozen, 3.0))
    record = read_json(frozen / "record.json")
    record["steps"][-1]["digest"] = digest
    write_json(frozen / "record.json", record)
    (frozen / "frozen.json").unlink()
    found = json.loads(harness("verify", frozen, "--json").output)
    assert [row["what"] for row in found if row["verdict"] == "changed"] == ["score-toy, brightness"]


def test_a_changed_record_is_named(frozen):
    record = read_json(frozen / "record.json")
    record["runtime"] = "another"
    write_json(frozen / "record.json", record)
    result = harness("verify", frozen)
    assert result.exit_code == EXIT_DEFECT
    assert "record.json" in result.output and "is not the file of frozen.json" in result.output


@pytest.mark.parametrize("name", ["record.json", "frozen.json"])
@pytest.mark.parametrize("text", ["{", "{}", '{"format": "run-record", "schema_version": 99}'])
def test_a_record_that_cannot_be_read_is_named(frozen, name, text):
    (frozen / name).write_text(text)
    result = harness("verify", frozen)
    assert result.exit_code == EXIT_DEFECT and name in result.output


def test_a_frozen_folder_names_no_file_outside_of_it(frozen):
    row = read_json(frozen / "frozen.json")
    row["files"]["../../secret"] = "0" * 64
    write_json(frozen / "frozen.json", row)
    result = harness("verify", frozen)
    assert result.exit_code == EXIT_DEFECT and "'..' part" in result.output


def test_a_run_that_was_changed_is_not_frozen(toy, run):
    edit_item(run, 0, 1.0)
    result = harness("freeze", run, "--out", "small")
    assert result.exit_code == EXIT_USAGE and "items.jsonl" in result.output
    assert not (toy.root / "small").exists()


def test_nothing_is_written_over(toy, run):
    (toy.root / "small").mkdir()
    result = harness("freeze", run, "--out", "small")
    assert result.exit_code == EXIT_USAGE and "is there already" in result.output


def test_a_sample_set_that_was_scored_as_it_was_comes_along(toy, run):
    drawn = next(run.glob("steps/*-sample-toy")) / "output"
    words = ("--asset", f"toy-reference={toy.reference}", "--name", "mine")
    assert harness("score", "toy", "--samples", drawn.resolve(), *words).exit_code == 0
    assert harness("freeze", "mine", "--samples", "--out", "small").exit_code == 0
    shutil.rmtree(toy.runs_dir)
    result = harness("verify", "small")
    assert result.exit_code == 0 and "score-toy, pixels" in result.output


def test_what_does_not_follow_from_items_is_said(toy, run):
    (toy.root / "benchmarks" / "toy" / "recompute.py").unlink()
    result = harness("verify", run)
    assert result.exit_code == 0
    assert "not checked" in result.output and "needs features" in result.output


def test_a_changed_png_is_named(toy, make_samples, class_set):
    folder = make_samples(class_set, form="png").folder
    words = ("--asset", f"toy-reference={toy.reference}", "--name", "mine")
    assert harness("score", "toy", "--samples", folder, *words).exit_code == 0
    assert harness("freeze", "mine", "--samples", "--out", "small").exit_code == 0
    path = sorted((toy.root / "small").rglob("*.png"))[1]
    path.write_bytes(encode_png(np.full((8, 8, 3), 9, np.uint8)))
    result = harness("verify", "small")
    assert result.exit_code == EXIT_DEFECT and path.name in result.output


@pytest.mark.parametrize("name", sorted(Catalog.load(find_project()).benchmarks))
def test_a_benchmark_states_its_items_or_has_no_number_of_them(name: str):
    benchmark = Catalog.load(find_project()).benchmark(name)
    assert (read_recompute(benchmark) is None) == (name in ("adm", "gpic"))
