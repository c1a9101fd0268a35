"""The cross-entropy of an output head, without ever holding all of its logits.

With 16,384 codes the logits of a batch, and their gradient, are larger than everything else a head touches. Here they
exist for one chunk of tokens at a time: each chunk's part of the gradient is computed immediately, so the logits are
neither kept nor recomputed.

Shapes: R predicted tokens, K codes, D width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from gear.numerics import at_least_float32, row_chunks


def linear_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """cross_entropy(hidden @ weight.T, targets), the mean in nats over R tokens: a 0-d tensor, at least float32.

    hidden (R, D), weight (K, D), targets (R,) int64. The product is computed in autocast's type where autocast is on,
    and the softmax in float32 in any case. The result can be back-propagated once.
    """
    device_type = hidden.device.type
    dtype = torch.get_autocast_dtype(device_type) if torch.is_autocast_enabled(device_type) else hidden.dtype
    loss: Tensor = _LinearCrossEntropy.apply(hidden, weight, targets, dtype)
    return loss


class _LinearCrossEntropy(torch.autograd.Function):
    """The gradients are computed with the loss, for an incoming gradient of 1, and scaled in the backward pass."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, dtype: torch.dtype) -> Tensor:
        rows, head = hidden.detach().to(dtype), weight.detach().to(dtype)
        loss = at_least_float32(hidden.new_zeros(()))
        of_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        of_weight = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        with torch.autocast(hidden.device.type, enabled=False):
            for chunk in row_chunks(len(rows), len(head), rows.device):
                log_probs = at_least_float32(rows[chunk] @ head.T).log_softmax(dim=-1)  # (r, K)
                picked = targets[chunk, None]
                loss -= log_probs.gather(1, picked).sum()
                of_logits = _minus_one_at(picked, log_probs.exp_()).to(dtype)
                if of_hidden is not None:
                    of_hidden[chunk] = of_logits @ head
                if of_weight is not None:
                    of_weight += of_logits.T @ rows[chunk]
        ctx.gradients, ctx.num_rows = (of_hidden, of_weight), len(rows)
        return loss / len(rows)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        if ctx.gradients is None:
            raise RuntimeError(
                "linear_cross_entropy can be back-propagated only once; compute it again for a second time"
            )
        of_hidden, of_weight = ctx.gradients
        ctx.gradients = None
        scale = grad / ctx.num_rows
        return _scaled(of_hidden, scale), _scaled(of_weight, scale), None, None


def _minus_one_at(picked: Tensor, probs: Tensor) -> Tensor:
    """The gradient of the logits of a summed cross-entropy; changes `probs` (r, K) in place."""
    return probs.scatter_add_(1, picked, torch.full_like(picked, -1, dtype=probs.dtype))


def _scaled(gradient: Tensor | None, scale: Tensor) -> Tensor | None:
    """In place: a head's gradient is as large as the head, and nothing else refers to it."""
    return None if gradient is None else gradient.mul_(scale)
