"""One process of a training test: `python -m tests.gear.training.worker JOBS.json`, started as torchrun would.

JOBS.json is a list of jobs, done one after the other by all processes together:
    phase, out: the stage and its run folder
    config: changes of the tiny configuration, section by section; stage: of every stage's settings
    stop_at, kill_at: a signal to one process (the last) after that update, as from outside
or {"check": name}, one of the functions in CHECKS, which assert something about all processes.
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
from gear.training.loop import fit
from gear.training.optim import LossScale
from gear.training.processes.distributed import mean_over_processes, process_group, world
from gear.training.processes.reducer import GradientReducer
from gear.training.processes.sharding import gather_full
from gear.training.processes.sync_norm import synchronise_batch_norms
from gear.training.stages.stage import Stage
from harness.contract.errors import EXIT_STOPPED
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
        if stopped.code != EXIT_STOPPED:
            raise
        (Path(job["out"]) / f"stopped.{world().rank}").write_text(str(stage.step))


def sync_norm_is_batch_norm_of_all_images() -> None:
    """Output, running statistics and gradients of nn.BatchNorm2d on the whole batch, from a process's share."""
    torch.manual_seed(0)
    images = torch.randn(8, 3, 5, 5, dtype=torch.float64) * torch.tensor([1.0, 5.0, 0.1])[:, None, None] + 2.0
    plain = torch.nn.Sequential(torch.nn.BatchNorm2d(3)).double()
    torch.nn.init.normal_(plain[0].weight)
    synced = copy.deepcopy(plain)
    synchronise_batch_norms(synced)
    share = slice(world().rank * len(images) // world().size, (world().rank + 1) * len(images) // world().size)

    whole_input = images.clone().requires_grad_()
    whole = plain(whole_input)
    whole.square().sin().mean().backward()
    own_input = images[share].clone().requires_grad_()
    own = synced(own_input)
    own.square().sin().mean().backward()

    torch.testing.assert_close(own, whole[share])
    assert whole_input.grad is not None and own_input.grad is not None
    torch.testing.assert_close(own_input.grad / world().size, whole_input.grad[share])
    for ours, theirs in zip(synced.parameters(), plain.parameters(), strict=True):
        assert ours.grad is not None
        torch.testing.assert_close(mean_over_processes(ours.grad), theirs.grad)
    torch.testing.assert_close(dict(synced.named_buffers()), dict(plain.named_buffers()))
    torch.testing.assert_close(synced.eval()(images), plain.eval()(images))


def gradients_are_averaged_once_per_update() -> None:
    """Two micro-batches, one exchange; an unused parameter gets no gradient."""
    used, unused = (torch.nn.Parameter(torch.zeros(3)) for _ in range(2))
    reducer = GradientReducer([used, unused], bucket_bytes=1)
    (used * (world().rank + 1)).sum().backward()
    assert used.grad is not None
    assert torch.equal(used.grad, torch.full((3,), float(world().rank + 1))), "accumulating exchanges nothing"
    with reducer.averaging():
        (used * 10 * (world().rank + 1)).sum().backward()
    mean_rank = sum(range(1, world().size + 1)) / world().size
    torch.testing.assert_close(used.grad, torch.full((3,), 11 * mean_rank))
    assert unused.grad is None


def a_scaled_loss_updates_sharded_weights_as_a_plain_one() -> None:
    """Also an overflow in one process: all of them skip the update."""

    def after_two(loss_scale: LossScale | None) -> tuple[Stage, Any]:
        stage = tiny.stage("ar", config_of({"config": {"engine": {"sharding": "fsdp"}}}))
        optimization = stage.optimizations["ar"]
        optimization.loss_scale = loss_scale
        torch.manual_seed(1)
        for _ in range(2):
            stage.micro_step(tiny.batch(), last=True, diagnose=False)
            stage.finish_update()
        return stage, gather_full(stage.modules["ar"].state_dict())

    scale = LossScale("cpu")
    stage, scaled = after_two(scale)
    torch.testing.assert_close(scaled, after_two(None)[1])
    hidden = stage.modules["projectors"](torch.ones(1, 1, stage.config.ar.dim))[0]
    norm = stage.optimizations["ar"].step(hidden.sum() * (1e38 if world().rank == 0 else 1.0))
    assert norm == 0.0 and scale.scale == 2.0**15
    torch.testing.assert_close(gather_full(stage.modules["ar"].state_dict()), scaled, rtol=0, atol=0)


CHECKS = (
    sync_norm_is_batch_norm_of_all_images,
    gradients_are_averaged_once_per_update,
    a_scaled_loss_updates_sharded_weights_as_a_plain_one,
)

if __name__ == "__main__":
    torch.manual_seed(os.getpid())  # whatever a process starts with must not matter
    with process_group(torch.device("cpu")):
        for job in json.loads(Path(sys.argv[1]).read_text()):
            if "check" in job:
                next(check for check in CHECKS if check.__name__ == job["check"])()
            else:
                run(job)
