"""Start the processes of a training test on this machine, without torchrun's agent around them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

PATIENCE_S = 900.0
"""A test that takes this long has hung; on a busy machine it may take minutes."""


def start(jobs: list[dict[str, Any]], count: int, folder: Path) -> list[subprocess.Popen[str]]:
    """`count` processes that run `jobs` together."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"jobs-{count}.json"
    path.write_text(json.dumps(jobs, default=str))
    common = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(count)}
    return [
        subprocess.Popen(
            [sys.executable, "-m", "tests.gear.training.worker", str(path)],
            env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]


def run(jobs: list[dict[str, Any]], count: int, folder: Path) -> None:
    """Run `jobs` with `count` processes; a failure shows the processes' output."""
    finish(start(jobs, count, folder))


def finish(processes: list[subprocess.Popen[str]]) -> None:
    errors = [process.communicate(timeout=PATIENCE_S)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), "\n".join(errors)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def rows(out: Path) -> list[dict[str, Any]]:
    """The log of a run."""
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
