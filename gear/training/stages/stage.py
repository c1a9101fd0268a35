"""The interface of a stage for the training loop. The stages are in tokenizer.py, e2e.py, ar.py and t2i.py."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from gear.config import RunConfig
from gear.data.loader import Batch
from gear.training.ema import EMA
from gear.training.optim import LossScale, Optimization
from gear.training.processes.distributed import world
from gear.training.processes.prepare import autocast_dtype, prepare
from gear.training.processes.sharding import gather_full, shard_like
from harness.contract.errors import UserError

Logs = dict[str, "Tensor | float"]
"""Metric name -> 0-d tensor, left on its device: only logged steps are waited for."""


class Stage(ABC):
    """Modules, their averages and their optimizers, and one micro-step over them.

    `modules`, `averages`, `optimizations` and `running` name everything that a checkpoint must hold; the names of the
    first two are the keys of GEAR's published files: vq, vq_ema, ar, ema, projectors, discriminator.
    """

    phase: str
    headline: str
    """The logged value that the progress bar shows."""

    def __init__(self, config: RunConfig, device: torch.device) -> None:
        self.config, self.device = config, device
        self.settings = config.stage(self.phase)
        self.step = 0
        """Finished updates."""
        self.modules: dict[str, nn.Module] = {}
        self.averages: dict[str, EMA] = {}
        self.optimizations: dict[str, Optimization] = {}
        self.running: dict[str, nn.Module] = {}
        """Modules whose own buffers are running statistics: part of a checkpoint, but of no published file."""

    @abstractmethod
    def micro_step(self, batch: Batch, *, last: bool, diagnose: bool) -> Logs:
        """Work on one micro-batch. last: finish the update; diagnose: also compute the costly statistics."""

    def finish_update(self) -> None:
        """After the optimizers of an update: update the averages, count the step."""
        for name, average in self.averages.items():
            average.update(self.modules[_LIVE_OF[name]])
        self.step += 1

    def autocast(self) -> AbstractContextManager[Any]:
        """Forward passes in half precision on a GPU when the configuration says so; the CPU stays in float32."""
        half = self.half
        return nullcontext() if half is None else torch.autocast(self.device.type, dtype=half)

    @property
    def half(self) -> torch.dtype | None:
        """bfloat16 or float16 where forward passes use it."""
        return autocast_dtype(self.config, self.device)

    def prepare(self) -> None:
        """Prepare the modules for several processes and for speed. Call it after making the averages, which copy plain
        modules, and before making the optimizers, which keep references to parameters."""
        sharded = [self.modules[name] for name in _SHARDED if name in self.modules]
        averages = [average.module for name, average in self.averages.items() if _LIVE_OF[name] in _SHARDED]
        prepare(self.config, self.device, self.modules.values(), sharded + averages)

    def optimization(self, name: str, *modules: nn.Module) -> Optimization:
        """An optimizer over `modules`, registered under `name` for checkpoints."""
        made = Optimization(
            name,
            modules,
            getattr(self.settings, name),
            max_grad_norm=self.settings.max_grad_norm,
            accumulation=self.settings.accumulation,
            total_steps=self.settings.steps,
            bucket_bytes=self.config.engine.bucket_mb << 20,
            loss_scale=LossScale(self.device) if self.half == torch.float16 else None,
        )
        self.optimizations[name] = made
        return made

    def weights(self) -> dict[str, Any]:
        """The content of the finished model file: weights and configuration, without the optimizers.

        All processes call it; sharded tensors are gathered in the main one's dictionary and absent from the others'.
        """
        return {
            **{name: gather_full(module.state_dict()) for name, module in self.modules.items()},
            **{name: gather_full(average.module.state_dict()) for name, average in self.averages.items()},
            "config": self.config.to_dict(),
            "phase": self.phase,
            "steps": self.step,
        }

    def state_dict(self) -> dict[str, Any]:
        """Everything an uninterrupted run has in memory at this step; called by all processes, like `weights`.

        The position in the data follows from `steps`, and so does the random state of every process (`randomness.py`),
        as long as the number of processes is `processes`.
        """
        return {
            **self.weights(),
            **{
                f"opt_{name}": gather_full(optimization.state_dict())
                for name, optimization in self.optimizations.items()
            },
            "running": {name: _own_buffers(module) for name, module in self.running.items()},
            "processes": world().size,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`; strict."""
        if state.get("phase") != self.phase:
            raise UserError(
                f"the checkpoint belongs to the stage {state.get('phase')!r}, but this is {self.phase!r}; "
                "give another --out, or start from it with --init."
            )
        averages = {name: average.module for name, average in self.averages.items()}
        for name, module in (self.modules | averages).items():
            module.load_state_dict(shard_like(state[name], module.state_dict()))
        for name, optimization in self.optimizations.items():
            optimization.load_state_dict(state[f"opt_{name}"])
        for name, module in self.running.items():
            for key, buffer in _own_buffers(module).items():
                buffer.copy_(state["running"][name][key])
        self.step = state["steps"]


_LIVE_OF = {"vq_ema": "vq", "ema": "ar"}
_SHARDED = ("ar", "projectors")
"""The modules that FSDP shards; tokenizer and critic are small."""


def _own_buffers(module: nn.Module) -> dict[str, Tensor]:
    return dict(module.named_buffers(recurse=False))
