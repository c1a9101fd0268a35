"""The harness where gear is not installed: a copy without it, used as a person would."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
RUN = """
import os, sys
sys.path = [{copy!r}, *(folder for folder in sys.path if not os.path.isdir(os.path.join(folder, "gear")))]
sys.argv[0] = "harness"
from harness.cli import main
main()
"""


@pytest.fixture
def harness(tmp_path: Path):
    """Runs the command `harness` of a copy that has no gear beside it; returns its exit status and output."""
    copy = tmp_path / "installed"
    shutil.copytree(ROOT / "harness", copy / "harness", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(
        ROOT / "benchmarks" / "adm", copy / "benchmarks" / "adm", ignore=shutil.ignore_patterns("__pycache__")
    )
    code = RUN.format(root=str(ROOT), copy=str(copy))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HARNESS_HOME": str(tmp_path / "home"), "COLUMNS": "120"}

    def run(*words: str, **variables: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-c", code, *words],
            cwd=tmp_path,
            env={**environment, **variables},
            capture_output=True,
            text=True,
        )
        return done.returncode, done.stdout + done.stderr

    return run


def test_commands_folders_and_archives_are_scored_without_gear(harness, tmp_path):
    np.savez(tmp_path / "samples.npz", arr_0=np.full((3, 64, 64, 3), 7, np.uint8))
    status, said = harness("new", "benchmark", "sharpness", "--in", "mine")
    assert status == 0, said
    mine = {"HARNESS_BENCHMARKS": str(tmp_path / "mine")}
    status, said = harness("score", "sharpness", "--samples", "samples.npz", **mine)
    assert status == 0 and "7.00" in said, said
    status, said = harness("plan", "--benchmark", "sharpness", "--generator", "python my_model.py", **mine)
    assert status == 0 and "sample-sharpness" in said, said


def test_gears_options_and_commands_are_not_there_without_it(harness):
    assert "demo" not in harness("--help")[1]
    status, said = harness("run", "--benchmark", "adm", "--ckpt", "model.pt")
    assert status == 2 and "--ckpt" in said
    status, said = harness("run", "--benchmark", "adm")
    assert status == 2 and "--generator" in said and "--ckpt" not in said
