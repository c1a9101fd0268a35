"""The Slurm job, in a shell: a fake srun runs its command, a fake scontrol notes its arguments."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from harness.contract.errors import EXIT_STOPPED
from tests.gear import tiny

SCRIPT = Path(__file__).parents[3] / "scripts/train/slurm/train.sh"

SRUN = """#!/bin/sh
while [ "${1#--}" != "$1" ]; do shift; done
exec "$@"
"""
SCONTROL = """#!/bin/sh
if [ "$1" = show ]; then echo localhost; else echo "$@" >> "$ASKED"; fi
"""


@pytest.fixture
def cluster(tmp_path: Path) -> dict[str, str]:
    """The environment of a job on one node."""
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
    return {
        **os.environ,
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "ASKED": str(tmp_path / "asked"),
        "SLURM_JOB_ID": "42",
        "SLURM_JOB_NODELIST": "localhost",
        "SLURM_NNODES": "1",
        "PYTHON": sys.executable,
        "NPROC": "1",
        "OMP_NUM_THREADS": "1",
    }


def command(folder: Path) -> list[str]:
    """Train the tiny tokenizer on images of noise, long enough to be interrupted."""
    for label in ("a", "b"):
        (folder / "images" / label).mkdir(parents=True, exist_ok=True)
        for number in range(4):
            Image.new("RGB", (8, 8), (number * 60, 0, 90)).save(folder / "images" / label / f"{number}.png")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(tiny.VALUES))
    train = ["train", "tokenizer", "--preset", folder / "tiny.yaml", "--data-dir", folder / "images"]
    options = ["--out", folder / "out", "--set", "stages.tokenizer.steps=200", "--set", "data.random_hflip=false"]
    return ["bash", str(SCRIPT), *map(str, [*train, *options])]


@pytest.mark.slow
def test_a_job_that_runs_out_of_time_saves_and_requeues_itself(cluster: dict[str, str], tmp_path: Path) -> None:
    """SIGUSR1 to the batch shell, as `--signal=B:USR1@120` sends it; then the job once more, to the end."""
    job = subprocess.Popen(command(tmp_path), env=cluster)
    log = tmp_path / "out/log.jsonl"
    deadline = time.monotonic() + 240
    while not (log.exists() and log.stat().st_size):
        assert job.poll() is None, "it ended before it was interrupted"
        assert time.monotonic() < deadline
        time.sleep(0.1)
    job.send_signal(signal.SIGUSR1)
    assert job.wait(timeout=240) == EXIT_STOPPED
    assert (tmp_path / "asked").read_text() == "requeue 42\n"
    assert not (tmp_path / "out/model.pt").exists()

    again = subprocess.run(command(tmp_path), env={**cluster, "SLURM_RESTART_COUNT": "1"}, check=False)
    assert again.returncode == 0
    assert torch.load(tmp_path / "out/model.pt", weights_only=True)["steps"] == 200
    assert (tmp_path / "asked").read_text() == "requeue 42\n", "finished: not queued again"


@pytest.mark.slow
def test_a_job_that_fails_is_not_requeued(cluster: dict[str, str], tmp_path: Path) -> None:
    words = command(tmp_path)
    words[words.index("--preset") + 1] = "no-such-preset"
    done = subprocess.run(words, env=cluster, check=False, capture_output=True, text=True)
    assert done.returncode == 2
    assert "no preset named" in done.stderr
    assert not (tmp_path / "asked").exists()
