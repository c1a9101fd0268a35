"""`harness new benchmark`: the skeleton works before anything is filled in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from harness.cli import main


def run(*words: object):
    return CliRunner().invoke(main, [str(word) for word in words], env={"COLUMNS": "120"})


def test_a_new_benchmark_passes_its_gold_check_and_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path / "home"))
    made = run("new", "benchmark", "sharpness", "--in", "mine")
    assert made.exit_code == 0 and "harness check sharpness" in made.output
    monkeypatch.setenv("HARNESS_BENCHMARKS", str(tmp_path / "mine"))
    checked = run("check", "sharpness")
    assert checked.exit_code == 0 and "pass" in checked.output, checked.output
    np.savez("samples.npz", arr_0=np.full((3, 64, 64, 3), 7, np.uint8))
    scored = run("score", "sharpness", "--samples", "samples.npz", "--set", "batch_size=2")
    assert scored.exit_code == 0 and "7.00" in scored.output, scored.output
    refused = run("score", "sharpness", "--samples", "samples.npz", "--set", "batch_size=0")
    assert refused.exit_code == 2 and "sharpness.batch_size" in refused.output


@pytest.mark.parametrize("name", ["Sharpness", "sharp-ness", "../x", "1st", ""])
def test_a_name_that_cannot_be_a_package_is_refused(tmp_path: Path, name: str):
    result = run("new", "benchmark", name, "--in", tmp_path)
    assert result.exit_code == 2 and not list(tmp_path.iterdir())


def test_nothing_is_written_over(tmp_path: Path):
    (tmp_path / "sharpness").mkdir()
    result = run("new", "benchmark", "sharpness", "--in", tmp_path)
    assert result.exit_code == 2 and "exists already" in result.output
