"""Drawing on one machine and scoring on another, with nothing shared but a copied folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from harness.cli import main
from harness.report.run import report_for_run
from tests.harness.conftest import Toy


def harness(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words], env={"COLUMNS": "160"})


def score_of(run: Path) -> dict:
    (path,) = run.glob("steps/*/output/score.json")
    return json.loads(path.read_text())


def test_a_set_drawn_on_one_machine_and_scored_on_another_has_the_record_of_one(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
):
    model, reference = toy.run_words()[:-2], toy.run_words()[-2:]
    drawn = harness(*model, "--only", "draw", "--name", "drawn")
    assert drawn.exit_code == 0, drawn.output
    steps = json.loads(Path("runs/drawn/record.json").read_text())["steps"]
    assert [step["kind"] for step in steps] == ["requests", "sample"]
    assert Path("runs/drawn/report.html").is_file()
    folder = f"runs/drawn/{steps[1]['folder']}/output"
    assert f"{folder}: copy it" in drawn.output and "harness score toy --samples DIR" in drawn.output

    whole = harness(*model, *reference, "--name", "whole")  # on the first machine, which has drawn already
    assert whole.exit_code == 0, whole.output

    shutil.copytree(folder, "elsewhere/copied")
    monkeypatch.setenv("HARNESS_HOME", str(toy.root / "elsewhere/home"))
    words = ["run", "--benchmark", "toy", "--only", "score", "--samples", "elsewhere/copied", *reference]
    scored = harness(*words, "--runs", "elsewhere/runs", "--name", "scored")
    assert scored.exit_code == 0, scored.output
    there, here = score_of(Path("elsewhere/runs/scored")), score_of(Path("runs/whole"))
    assert there["metrics"] == here["metrics"] and there["digests"] == here["digests"]
    text = report_for_run(Path("elsewhere/runs/scored"), toy.catalog).read_text()
    assert (steps[1]["digest"][:12] in text and "&#39;toy&#39;" in text) or '"toy"' in text or "toy" in text


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--generator", "python my_model.py", "--only", "score"], "give --samples DIR: what a run with --only draw"),
        (["--samples", "benchmarks/toy/check/samples.npz", "--only", "draw"], "are not drawn; leave out --only draw"),
        (
            ["--generator", "python my_model.py", "--only", "draw", "--set", "toy.scale=2"],
            "where the samples are sc",
        ),
    ],
)
def test_half_a_run_that_makes_no_sense_is_a_sentence(toy: Toy, words: list[str], sentence: str):
    refused = harness("run", "--benchmark", "toy", *words)
    assert refused.exit_code == 2 and sentence in " ".join(refused.output.split())


def test_what_is_only_drawn_needs_no_files_of_the_scorers(toy: Toy):
    words = ["plan", "--benchmark", "toy", "--generator", "python my_model.py"]
    assert harness(*words).exit_code == 4
    assert harness(*words, "--only", "draw").exit_code == 0
