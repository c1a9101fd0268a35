"""One process of a training test: `python -m tests.gear.training.worker JOBS.json`, started as torchrun would.

JOBS.json is a list of jobs, done one after the other by all processes together:
    phase, out: the stage and its run folder
    config: changes of the tiny configuration, section by section; stage: of every stage's settings
    stop_at, kill_at: a signal to one process (the last) after that update, as from outside
"""

from __future__ import annotations

import copy
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from gear.config import RunConfig
from gear.training.distributed import process_group, world
from gear.training.loop import fit
from gear.training.stage import Stage
from gear.training.stopping import EXIT_INTERRUPTED
from tests.gear import tiny


def config_of(job: dict[str, Any]) -> RunConfig:
    values = copy.deepcopy(tiny.VALUES)
    for section, changes in job.get("config", {}).items():
        values[section] = {**values.get(section, {}), **changes}
    for settings in values["stages"].values():
        settings.update(job.get("stage", {}))
    return RunConfig.from_dict(values)


def signal_after(stage: Stage, step: int, number: signal.Signals) -> None:
    """The last process gets the signal when it has finished update `step`."""
    finish = stage.finish_update

    def finish_and_signal() -> None:
        finish()
        if stage.step == step and world().rank == world().size - 1:
            os.kill(os.getpid(), number)

    stage.finish_update = finish_and_signal  # type: ignore[method-assign]


def run(job: dict[str, Any]) -> None:
    torch.set_default_dtype(getattr(torch, job.get("dtype", "float32")))
    stage = tiny.stage(job["phase"], config_of(job))
    if "stop_at" in job:
        signal_after(stage, job["stop_at"], signal.SIGUSR1)
    if "kill_at" in job:
        signal_after(stage, job["kill_at"], signal.SIGKILL)
    try:
        fit(stage, tiny.Noise(), Path(job["out"]), {})
    except SystemExit as stopped:
        assert stopped.code == EXIT_INTERRUPTED
        (Path(job["out"]) / f"stopped.{world().rank}").write_text(str(stage.step))


if __name__ == "__main__":
    torch.manual_seed(os.getpid())  # whatever a process starts with must not matter
    with process_group(torch.device("cpu")):
        for job in json.loads(Path(sys.argv[1]).read_text()):
            run(job)
