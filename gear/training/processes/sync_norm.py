"""Batch normalisation over the images of all processes.

`torch.nn.SyncBatchNorm` has no CPU kernel. This one is plain tensor arithmetic, so the tests on a CPU cover
what runs on a GPU; the discriminator is small, and the statistics are a few kilobytes.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from gear.training.processes.distributed import world


class SyncBatchNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d` over the images of all processes, each of which must have the same number.

    Keys, initial values and running statistics are those of the module it replaces.
    """

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or world().size == 1:
            return super().forward(input)
        normalised, mean, variance = _Normalise.apply(input, self.weight, self.bias, self.eps)
        self._remember(mean, variance, count=input.numel() // input.shape[1] * world().size)
        return normalised

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """Update the running statistics as nn.BatchNorm2d does: with the unbiased variance."""
        assert self.running_mean is not None and self.running_var is not None and self.momentum is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)


class _Normalise(torch.autograd.Function):
    """x (B, C, H, W) -> weight * (x - mean) / sqrt(var + eps) + bias, with mean and var (C,) over all processes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        mean, variance = _global_statistics(x)
        inverse = torch.rsqrt(variance + eps)
        centred = (x - _per_channel(mean)) * _per_channel(inverse)
        ctx.save_for_backward(centred, weight, inverse)
        ctx.mark_non_differentiable(mean, variance)
        return centred * _per_channel(weight) + _per_channel(bias), mean, variance

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        """Weight and bias get this process's share, which the optimizer averages like every other gradient."""
        gradient = gradients[0]
        centred, weight, inverse = ctx.saved_tensors
        to_bias = gradient.sum((0, 2, 3))
        to_weight = (gradient * centred).sum((0, 2, 3))
        to_x = None
        if ctx.needs_input_grad[0]:
            sums = torch.stack([to_bias, to_weight])
            dist.all_reduce(sums)
            count = gradient.numel() // gradient.shape[1] * world().size
            mean_gradient, mean_product = (sums / count).unbind()
            inner = gradient - _per_channel(mean_gradient) - centred * _per_channel(mean_product)
            to_x = inner * _per_channel(weight * inverse)
        wanted = ctx.needs_input_grad
        return to_x, to_weight if wanted[1] else None, to_bias if wanted[2] else None, None


def _global_statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance per channel over all processes, from those of each (Chan et al. 1979)."""
    variance, mean = torch.var_mean(x, dim=(0, 2, 3), correction=0)
    local = torch.stack([mean, variance])  # (2, C)
    of_all = local.new_empty(world().size, *local.shape)
    dist.all_gather(list(of_all), local)  # into its rows
    means, variances = of_all.unbind(1)  # (processes, C)
    mean = means.mean(0)
    return mean, (variances + (means - mean).square()).mean(0)


def _per_channel(values: Tensor) -> Tensor:
    return values[None, :, None, None]


def synchronise_batch_norms(module: nn.Module) -> None:
    """Replace every nn.BatchNorm2d inside `module`, in place; parameters and buffers stay the same objects."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d) and not isinstance(child, SyncBatchNorm2d):
            setattr(module, name, _synchronised(child))
        else:
            synchronise_batch_norms(child)


def _synchronised(norm: nn.BatchNorm2d) -> SyncBatchNorm2d:
    replacement = SyncBatchNorm2d(norm.num_features, norm.eps, norm.momentum, device="meta")
    replacement.weight, replacement.bias = norm.weight, norm.bias
    for name, buffer in norm.named_buffers():
        setattr(replacement, name, buffer)
    return replacement.train(norm.training)
