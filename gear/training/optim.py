"""One optimizer with its schedule, clipping and accumulation: everything between a loss and the next step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from gear.config import OptimizerConfig
from gear.training.processes.reducer import GradientReducer
from gear.training.processes.sharding import shard_optimizer_state

AfterBackward = Callable[[str, Tensor], None]
"""Called with an optimizer's name and the loss right after a backward pass, before clipping."""


class LossScale:
    """Dynamic loss scaling for float16 with the rule and the numbers of torch.amp.GradScaler.

    That class looks for infinities itself, in this process's gradients; here the norm over all processes has told
    already, and everything stays on the device.
    """

    INITIAL, GROWTH, BACKOFF, INTERVAL = 2.0**16, 2.0, 0.5, 2_000

    def __init__(self, device: torch.device | str) -> None:
        self.scale = torch.full((), self.INITIAL, device=device)
        self.good = torch.zeros((), dtype=torch.int32, device=device)
        """Good updates since the scale changed."""

    def update(self, overflowed: Tensor) -> None:
        """After an update. overflowed (0-d bool): its gradients were not finite."""
        grown = self.good + 1 >= self.INTERVAL
        larger = torch.where(grown, self.scale * self.GROWTH, self.scale)
        larger = torch.where(larger.isfinite(), larger, self.scale)
        self.scale = torch.where(overflowed, self.scale * self.BACKOFF, larger)
        self.good = torch.where(overflowed | grown, 0, self.good + 1).to(torch.int32)

    def state_dict(self) -> dict[str, Tensor]:
        return {"scale": self.scale, "good": self.good}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.scale, self.good = (state[name].to(self.scale.device) for name in ("scale", "good"))


def _own_part(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


class Optimization:
    """AdamW over the parameters of some modules.

    Warm-up: update u, counted from 0, runs at lr * min(1, u / warmup_steps); then the schedule's factor. Both count
    updates, however many processes there are. Gradients are averaged over processes and clipped to a global L2 norm
    over all parameters of this optimizer (0: not at all). An update whose gradient norm is not finite is skipped on the
    device itself: weights and moments stay as they were, and the host does not have to wait for the norm.

    With a loss scale such an update is an expected overflow: the scale is halved, and the norm is given as 0. Not so
    once the scale is down to 1, where gradients would not be finite without it either.
    """

    def __init__(
        self,
        name: str,
        modules: Iterable[nn.Module],
        config: OptimizerConfig,
        *,
        max_grad_norm: float,
        accumulation: int = 1,
        total_steps: int = 0,
        bucket_bytes: int = 25 << 20,
        loss_scale: LossScale | None = None,
        after_backward: AfterBackward | None = None,
    ) -> None:
        self.name, self.config = name, config
        self.max_grad_norm, self.accumulation, self.total_steps = max_grad_norm, accumulation, total_steps
        self.loss_scale, self.after_backward = loss_scale, after_backward
        self.parameters = [parameter for module in modules for parameter in module.parameters()]
        # FSDP2 averages the gradients of sharded parameters itself, where it scatters them.
        replicated = [parameter for parameter in self.parameters if not isinstance(parameter, DTensor)]
        self.reducer = GradientReducer(replicated, bucket_bytes)
        self.optimizer = torch.optim.AdamW(
            self.parameters,
            lr=config.lr,
            betas=(config.beta1, config.beta2),
            eps=config.eps,
            weight_decay=config.weight_decay,
            fused=True,
        )
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, self._factor)

    def _factor(self, update: int) -> float:
        """Learning rate of update `update` (from 0) in units of lr."""
        config = self.config
        if update < config.warmup_steps:
            return update / config.warmup_steps
        if config.schedule == "constant" or config.lr == 0:
            return 1.0
        done = (update - config.warmup_steps) / max(1, self.total_steps - config.warmup_steps)
        floor = config.lr_min / config.lr
        return floor + (1.0 - floor) * (1.0 + math.cos(math.pi * min(1.0, done))) / 2.0

    @property
    def lr(self) -> float:
        """The rate that the next update will use."""
        return float(self.schedule.get_last_lr()[0])

    def step(self, loss: Tensor, *, last_micro_batch: bool = True) -> Tensor | None:
        """Back-propagate; on the last micro-batch average, clip, update, advance the schedule and clear the gradients.

        Returns the gradient norm before clipping (0-d tensor), or None while gradients are still accumulating.
        """
        scaled = loss / self.accumulation
        if self.loss_scale is not None:
            scaled = scaled * self.loss_scale.scale
        if last_micro_batch:
            with self.reducer.averaging():
                scaled.backward()
        else:
            scaled.backward()
        if self.after_backward is not None:
            self.after_backward(self.name, loss.detach())
        if not last_micro_batch:
            return None
        norm = self._clip()
        self._update(norm)
        if self.loss_scale is not None:
            norm = self._rescale(self.loss_scale, norm)
        self.schedule.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norm

    def _clip(self) -> Tensor:
        """`clip_grad_norm_`, with the norm over all shards where parameters are sharded."""
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        if self.loss_scale is not None:
            torch._foreach_div_([_own_part(gradient) for gradient in gradients], self.loss_scale.scale)
        norm = nn.utils.get_total_norm(gradients)
        if isinstance(norm, DTensor):
            norm = norm.full_tensor()
        if self.max_grad_norm:
            nn.utils.clip_grads_with_norm_(self.parameters, self.max_grad_norm, norm)
        return norm

    def _update(self, norm: Tensor) -> None:
        """AdamW's kernel reads `found_inf` on the device and does nothing where it is 1 (made for loss scaling)."""
        optimizer: Any = self.optimizer
        optimizer.found_inf, optimizer.grad_scale = (~norm.isfinite()).float(), None
        optimizer.step()

    @staticmethod
    def _rescale(loss_scale: LossScale, norm: Tensor) -> Tensor:
        """Adapt the scale; returns the norm to report."""
        overflowed, expected = ~norm.isfinite(), loss_scale.scale > 1.0
        loss_scale.update(overflowed)
        return torch.where(overflowed & expected, 0.0, norm)

    def state_dict(self) -> dict[str, Any]:
        scale = {} if self.loss_scale is None else {"loss_scale": self.loss_scale.state_dict()}
        return {"optimizer": self.optimizer.state_dict(), "schedule": self.schedule.state_dict(), **scale}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if self.loss_scale is not None:
            self.loss_scale.load_state_dict(state["loss_scale"])
        self.optimizer.load_state_dict(shard_optimizer_state(state["optimizer"], self.parameters))
        self.schedule.load_state_dict(state["schedule"])
        self._use_own_lr()

    def _use_own_lr(self) -> None:
        """At the schedule's current point: a run may continue with another learning rate than it was saved with."""
        self.schedule.base_lrs = [self.config.lr] * len(self.optimizer.param_groups)
        rate = self.config.lr * self._factor(self.schedule.last_epoch)
        for group in self.optimizer.param_groups:
            group["initial_lr"], group["lr"] = self.config.lr, rate
        self.schedule._last_lr = [rate] * len(self.optimizer.param_groups)
