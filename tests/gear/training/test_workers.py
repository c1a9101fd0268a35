"""Data-loading workers: signals are the main process's business, and a worker's death is one sentence."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch.multiprocessing
from torch.utils.data import get_worker_info

from gear.data import workers
from gear.data.base import Sample
from gear.data.loader import Batch, batches
from gear.data.order import BatchOrder
from gear.training.loop import fit
from harness.contract.errors import EXIT_STOPPED, EnvironmentFailure
from tests.gear import tiny


class Noise(tiny.Noise):
    """Images of which one, decoded in a worker, makes something happen to that worker."""

    def __init__(self, happens: Callable[[], object]) -> None:
        self.happens = happens

    def item(self, index: int, rng: np.random.Generator) -> Sample:
        if index == 7 and get_worker_info() is not None:
            self.happens()
        return super().item(index, rng)


def read_all(source: Noise, num_workers: int = 2) -> list[Batch]:
    with workers.explained():
        return list(batches(source, BatchOrder(len(source), 2, 0), start=0, stop=5, num_workers=num_workers))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_worker_lives_on_after_a_signal_of_somebody_else(number: int) -> None:
    source = Noise(lambda: subprocess.run(["kill", f"-{int(number)}", str(os.getpid())], check=True))
    assert sorted(index for batch in read_all(source) for index in batch.ids.tolist()) == list(range(10))


def test_a_worker_ends_when_the_main_process_says_so_even_in_the_middle_of_a_sample(tmp_path: Path) -> None:
    def get_stuck() -> None:
        (tmp_path / "stuck").touch()
        time.sleep(3600)

    source = Noise(get_stuck)
    stream = batches(source, BatchOrder(len(source), 2, 0), start=0, stop=5, num_workers=1)
    first = next(stream)
    while not (tmp_path / "stuck").exists():
        time.sleep(0.05)
    (worker,) = torch.multiprocessing.active_children()
    worker.terminate()
    worker.join()
    assert first.ids.shape == (2,) and worker.exitcode == 0


@pytest.mark.parametrize(
    ("happens", "said"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "killed by signal: Killed"),
        (lambda: os._exit(3), "worker"),
        (lambda: os.kill(os.getpid(), signal.SIGBUS), "Bus error"),
    ],
)
def test_a_worker_that_dies_is_a_failure_of_the_environment(happens: Callable[[], None], said: str) -> None:
    with pytest.raises(EnvironmentFailure, match=rf"ended by itself \(.*{said}.*data\.num_workers"):
        read_all(Noise(happens))


def test_shared_memory_that_is_too_small_is_named() -> None:
    """A worker may not make files beyond 64 bytes, in shared memory either: the same call fails as in a small one."""
    source = Noise(lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (64, resource.RLIM_INFINITY)))
    with pytest.raises(EnvironmentFailure, match=r"^/dev/shm \(\d+ MiB\) cannot hold .* --shm-size=8g.*num_workers"):
        read_all(source)


def test_workers_that_cannot_be_started_are_a_failure_of_the_environment() -> None:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(list(Path("/proc/self/fd").iterdir()))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 3, limit[1]))
    try:
        with pytest.raises(EnvironmentFailure, match=r"cannot be started \(Too many open files\)"):
            read_all(Noise(lambda: None), num_workers=8)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)


RUN = """
import sys
from pathlib import Path
from gear.training.loop import fit
from tests.gear import tiny

if __name__ == "__main__":
    config = tiny.config(steps=100_000, checkpoint_every=100_000)
    values = config.to_dict()
    values["data"]["num_workers"] = 2
    fit(tiny.stage("tokenizer", tiny.RunConfig.from_dict(values)), tiny.Noise(), Path(sys.argv[1]), {})
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_to_all_processes_of_a_run_saves_it(number: int, tmp_path: Path) -> None:
    """As Slurm, `timeout` and a terminal send it."""
    out = tmp_path / "out"
    run = subprocess.Popen([sys.executable, "-c", RUN, str(out)], start_new_session=True, stderr=subprocess.PIPE)
    log = out / "log.jsonl"
    while not (log.exists() and log.stat().st_size):
        assert run.poll() is None, run.communicate()
        time.sleep(0.05)
    os.killpg(run.pid, number)
    error = run.communicate()[1].decode()
    assert run.returncode == EXIT_STOPPED, error
    assert "Traceback" not in error and "killed" not in error
    assert len(list((out / "checkpoints").glob("*.pt"))) == 1


def test_a_run_whose_worker_is_killed_ends_with_one_sentence(tmp_path: Path) -> None:
    """It may be anywhere in a step when it hears of it."""
    values = tiny.config(steps=100).to_dict()
    values["data"]["num_workers"] = 1
    source = Noise(lambda: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(EnvironmentFailure, match=r"killed by signal: Killed.*resumes from the last checkpoint"):
        fit(tiny.stage("tokenizer", tiny.RunConfig.from_dict(values)), source, tmp_path, {})


def test_a_second_training_in_one_folder_is_refused_and_a_killed_one_continues_at_once(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run = subprocess.Popen([sys.executable, "-c", RUN, str(out)], stderr=subprocess.PIPE)
    log = out / "log.jsonl"
    while not (log.exists() and log.stat().st_size):
        assert run.poll() is None, run.communicate()
        time.sleep(0.05)
    second = subprocess.run([sys.executable, "-c", RUN, str(out)], capture_output=True, text=True, check=False)
    assert f"out is being trained by process {run.pid} on " in second.stderr
    run.kill()
    run.communicate()
    third = subprocess.Popen([sys.executable, "-c", RUN, str(out)], stderr=subprocess.PIPE)
    steps = len(log.read_text().splitlines())
    while len(log.read_text().splitlines()) == steps:
        assert third.poll() is None, third.communicate()
        time.sleep(0.05)
    third.kill()
    third.communicate()
