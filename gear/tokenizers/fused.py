"""Group norm, SiLU and a convolution as one step that keeps a single map for the backward pass.

Written as three modules, autograd keeps the input of each: three maps per convolution, which at 256 pixels are most of
the memory of tokenizer training. Norm and SiLU cost little compared with the convolution, so here only their input is
kept, and the two are recomputed in the backward pass; the convolution is not.

The output has the layout of the input, channels last or not: see `gear.numerics.in_layout`.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

_PIECE = 1 << 18
"""Numbers: 1 MiB."""


def norm_silu_conv(x: Tensor, norm: nn.GroupNorm, conv: nn.Conv2d) -> Tensor:
    """conv(silu(norm(x))), maps (B, channels, height, width); in autocast's type where autocast is on."""
    if not torch.is_grad_enabled() or torch.compiler.is_compiling():
        # Nothing is kept without gradients; and a compiler decides for itself what to recompute.
        normed = norm(x)
        in_place = normed.device.type == "cpu" and normed.dtype == torch.float32 and not torch.compiler.is_compiling()
        return conv(silu_in_place(normed) if in_place else F.silu(normed))
    if torch.is_autocast_enabled(x.device.type):
        x = x.to(torch.get_autocast_dtype(x.device.type))
    out: Tensor = _NormSiluConv.apply(x, norm.weight, norm.bias, conv.weight, conv.bias, norm, conv)
    return out


def silu_in_place(maps: Tensor) -> Tensor:
    """x / (1 + exp(-x)) of dense float32 maps (B, channels, height, width) on a CPU, which are overwritten.

    It works in pieces that stay in the cache, which takes half the time of PyTorch's. And PyTorch's computes the last
    few numbers of each thread's share differently from the rest, so that pixels would depend on the number of threads.
    """
    in_memory = maps if maps.is_contiguous() else maps.permute(0, 2, 3, 1)  # channels last
    for piece in in_memory.view(-1).split(_PIECE):
        piece.div_(piece.neg().exp_().add_(1.0))
    return maps


class _NormSiluConv(torch.autograd.Function):
    """The modules are passed for their constants; their parameters are arguments, so that they get gradients."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        norm_weight: Tensor,
        norm_bias: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        norm: nn.GroupNorm,
        conv: nn.Conv2d,
    ) -> Tensor:
        ctx.save_for_backward(x, norm_weight, norm_bias, weight)
        ctx.norm, ctx.conv = norm, conv
        with torch.autocast(x.device.type, enabled=False):
            h = _norm_silu(x, norm_weight, norm_bias, norm)
            in_type = None if bias is None else bias.to(x.dtype)
            out = F.conv2d(h, _cast(weight, like=x), in_type, conv.stride, conv.padding)
            return out.contiguous(memory_format=_layout(x))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, norm_weight, norm_bias, weight = ctx.saved_tensors
        conv = ctx.conv
        with torch.enable_grad(), torch.autocast(x.device.type, enabled=False):
            x, norm_weight, norm_bias = (t.detach().requires_grad_() for t in (x, norm_weight, norm_bias))
            h = _norm_silu(x, norm_weight, norm_bias, ctx.norm)
        of_h, of_weight, of_bias = torch.ops.aten.convolution_backward(
            grad,
            h.detach(),
            _cast(weight, like=x),
            None if conv.bias is None else list(conv.bias.shape),
            conv.stride,
            conv.padding,
            conv.dilation,
            False,
            [0, 0],
            conv.groups,
            [True, ctx.needs_input_grad[3], ctx.needs_input_grad[4]],
        )
        of_x, of_norm_weight, of_norm_bias = torch.autograd.grad(h, (x, norm_weight, norm_bias), of_h)
        wide = [None if part is None else part.to(weight.dtype) for part in (of_weight, of_bias)]
        return of_x, of_norm_weight, of_norm_bias, *wide, None, None


def _norm_silu(x: Tensor, weight: Tensor, bias: Tensor, norm: nn.GroupNorm) -> Tensor:
    """Statistics and arithmetic inside the kernel are in float32 even where the maps are bfloat16."""
    h = F.silu(F.group_norm(x, norm.num_groups, weight.to(x.dtype), bias.to(x.dtype), norm.eps))
    return h.contiguous(memory_format=_layout(x))  # the norm's GPU kernel always returns the row layout


def _cast(weight: Tensor, like: Tensor) -> Tensor:
    """The weight in the type and layout of a map: one copy, or none where both are its own."""
    return weight.to(like.dtype, memory_format=_layout(like))


def _layout(maps: Tensor) -> torch.memory_format:
    last = maps.is_contiguous(memory_format=torch.channels_last) and not maps.is_contiguous()
    return torch.channels_last if last else torch.contiguous_format
