"""One optimizer with its warm-up, clipping and accumulation: everything between a loss and the next step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gear.config import OptimizerConfig

AfterBackward = Callable[[str, Tensor], None]
"""Called with an optimizer's name and the loss right after a backward pass, before clipping."""


class Optimization:
    """AdamW over the parameters of some modules.

    The learning rate is lr * min(1, u / warmup_steps) for update u, counted from 0. Warm-up counts updates, however
    many processes there are. Gradients are clipped to a global L2 norm over all parameters of this optimizer.
    """

    def __init__(
        self,
        name: str,
        modules: Iterable[nn.Module],
        config: OptimizerConfig,
        *,
        max_grad_norm: float,
        accumulation: int = 1,
        after_backward: AfterBackward | None = None,
    ) -> None:
        self.name, self.config = name, config
        self.max_grad_norm, self.accumulation = max_grad_norm, accumulation
        self.after_backward = after_backward
        self.parameters = [parameter for module in modules for parameter in module.parameters()]
        self.optimizer = torch.optim.AdamW(
            self.parameters,
            lr=config.lr,
            betas=(config.beta1, config.beta2),
            eps=config.eps,
            weight_decay=config.weight_decay,
        )
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, self._warmup)

    def _warmup(self, update: int) -> float:
        return min(1.0, update / max(1, self.config.warmup_steps)) if self.config.warmup_steps > 0 else 1.0

    @property
    def lr(self) -> float:
        """The rate that the next update will use."""
        return float(self.schedule.get_last_lr()[0])

    def step(self, loss: Tensor, *, last_micro_batch: bool = True) -> Tensor | None:
        """Back-propagate; on the last micro-batch clip, update, advance the warm-up and clear the gradients.

        Returns the gradient norm before clipping (0-d tensor), or None while gradients are still accumulating.
        """
        (loss / self.accumulation).backward()
        if self.after_backward is not None:
            self.after_backward(self.name, loss.detach())
        if not last_micro_batch:
            return None
        norm = nn.utils.clip_grad_norm_(self.parameters, self.max_grad_norm)
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norm

    def state_dict(self) -> dict[str, Any]:
        return {"optimizer": self.optimizer.state_dict(), "schedule": self.schedule.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
