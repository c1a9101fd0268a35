"""An exponential moving average of a module's weights."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


class EMA:
    """e <- decay * e + (1 - decay) * p for every parameter and floating-point buffer; other buffers are copied.

    `module` is a frozen copy in eval mode that can be used like the original. It starts as an exact copy of the live
    weights, even where the checkpoint of a warm start holds an average of its own.
    """

    def __init__(self, live: nn.Module, decay: float) -> None:
        if not 0.0 <= decay < 1.0:
            raise ValueError(f"ema_decay must be at least 0 and below 1, got {decay}")
        self.decay = decay
        self.module = copy.deepcopy(live).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, live: nn.Module) -> None:
        """Move the average towards the live weights; called once per optimizer update."""
        averaged, current = _tensors(self.module), _tensors(live)
        floating = [name for name, value in current.items() if value.is_floating_point()]
        ours = [averaged[name] for name in floating]
        theirs = [current[name].detach() for name in floating]
        torch._foreach_mul_(ours, self.decay)
        torch._foreach_add_(ours, theirs, alpha=1.0 - self.decay)
        for name in current.keys() - set(floating):
            averaged[name].copy_(current[name])


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}
