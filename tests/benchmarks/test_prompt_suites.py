"""The prompt suites' gold checks, each in the environment of its lock file, as `harness check` runs them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.parametrize("benchmark", ["wise", "dpg", "geneval"])
def test_the_gold_check_passes_in_the_locked_environment(benchmark: str, tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "harness", "check", benchmark, "--runs", str(tmp_path)]
    outcome = subprocess.run(argv, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
