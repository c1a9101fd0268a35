"""The second half of a SwiGLU, which keeps two hidden maps for the backward pass instead of four.

Hidden maps are the widest of a transformer block. Written as separate steps, autograd keeps the gate, its SiLU, the
other half and their product; the product is cheap compared with the matrix product after it, so it is recomputed.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def gated_linear(gate: Tensor, up: Tensor, linear: nn.Module) -> Tensor:
    """linear(silu(gate) * up), a bias-free layer: gate and up (..., hidden) -> (..., D)."""
    trains = torch.is_grad_enabled() and isinstance(linear, nn.Linear)  # a decoder may hold its weights packed
    if not trains or torch.compiler.is_compiling():
        return linear(F.silu(gate) * up)  # nothing is kept; and a compiler decides for itself
    out: Tensor = _GatedLinear.apply(gate, up, linear.weight)
    return out


class _GatedLinear(torch.autograd.Function):
    """Computed in the type of `gate`, which under autocast is autocast's."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up, weight)
        with torch.autocast(gate.device.type, enabled=False):
            return F.linear(F.silu(gate) * up, weight.to(gate.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        gate, up, weight = ctx.saved_tensors
        with torch.enable_grad(), torch.autocast(gate.device.type, enabled=False):
            gate, up = gate.detach().requires_grad_(), up.detach().requires_grad_()
            product = F.silu(gate) * up
        of_weight = None
        if ctx.needs_input_grad[2]:
            of_weight = (grad.flatten(0, -2).T @ product.detach().flatten(0, -2)).to(weight.dtype)
        of_gate, of_up = torch.autograd.grad(product, (gate, up), grad @ weight.to(grad.dtype))
        return of_gate, of_up, of_weight
