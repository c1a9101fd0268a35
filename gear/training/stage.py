"""What the loop asks of a stage. The stages themselves are tokenizer.py, e2e.py and ar.py."""

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
from gear.training.optim import Optimization
from harness.contract.errors import UserError

Logs = dict[str, "Tensor | float"]
"""Metric name -> 0-d tensor, left on its device: only logged steps are waited for."""


class Stage(ABC):
    """Modules, their averages and their optimizers, and one micro-step over them.

    `modules`, `averages` and `optimizations` name everything that a checkpoint must hold; the names are the keys of
    the checkpoint (those of GEAR's published files: vq, vq_ema, ar, ema, projectors, discriminator).
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

    @abstractmethod
    def micro_step(self, batch: Batch, *, last: bool, diagnose: bool) -> Logs:
        """Work on one micro-batch. last: finish the update; diagnose: also compute the costly statistics."""

    def finish_update(self) -> None:
        """After the optimizers of an update: move the averages, count the step."""
        for name, average in self.averages.items():
            average.update(self.modules[_LIVE_OF[name]])
        self.step += 1

    def autocast(self) -> AbstractContextManager[Any]:
        """bfloat16 forward passes on a GPU when the configuration says so; the CPU stays in float32."""
        if self.device.type == "cuda" and self.config.precision == "bf16":
            return torch.autocast("cuda", dtype=torch.bfloat16)
        return nullcontext()

    def optimization(self, name: str, *modules: nn.Module) -> Optimization:
        """An optimizer over `modules`, registered under `name` for checkpoints."""
        made = Optimization(
            name,
            modules,
            getattr(self.settings, name),
            max_grad_norm=self.settings.max_grad_norm,
            accumulation=self.settings.accumulation,
        )
        self.optimizations[name] = made
        return made

    def weights(self) -> dict[str, Any]:
        """What the finished model is: weights and configuration, without the optimizers."""
        return {
            **{name: module.state_dict() for name, module in self.modules.items()},
            **{name: average.module.state_dict() for name, average in self.averages.items()},
            "config": self.config.to_dict(),
            "phase": self.phase,
            "steps": self.step,
        }

    def state_dict(self) -> dict[str, Any]:
        """Everything an uninterrupted run has in memory at this step, random state included."""
        return {
            **self.weights(),
            **{f"opt_{name}": optimization.state_dict() for name, optimization in self.optimizations.items()},
            "rng": {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`; strict."""
        if state.get("phase") != self.phase:
            raise UserError(
                f"the checkpoint belongs to the stage {state.get('phase')!r}, this is {self.phase!r}; "
                "use another output folder, or start from it with --init."
            )
        for name, module in self.modules.items():
            module.load_state_dict(state[name])
        for name, average in self.averages.items():
            average.module.load_state_dict(state[name])
        for name, optimization in self.optimizations.items():
            optimization.load_state_dict(state[f"opt_{name}"])
        self.step = state["steps"]
        torch.set_rng_state(state["rng"]["cpu"])
        if state["rng"]["cuda"]:
            torch.cuda.set_rng_state_all(state["rng"]["cuda"])


_LIVE_OF = {"vq_ema": "vq", "ema": "ar"}
