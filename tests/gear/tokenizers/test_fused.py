"""Norm, SiLU and convolution as one step: the same numbers as three modules, with less memory for the backward pass."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gear.tokenizers.blocks import Conv1x1, conv3x3, group_norm
from gear.tokenizers.fused import norm_silu_conv


@pytest.fixture(params=["3x3", "1x1", "no bias"])
def pair(request: pytest.FixtureRequest) -> tuple[nn.GroupNorm, nn.Conv2d]:
    torch.manual_seed(0)
    conv = {"3x3": conv3x3(32, 5), "1x1": Conv1x1(32, 5), "no bias": conv3x3(32, 5, bias=False)}[request.param]
    norm = group_norm(32)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return norm, conv


def results(form, x: Tensor, norm: nn.GroupNorm, conv: nn.Conv2d) -> list[Tensor]:
    """The output and all gradients, those of norm and convolution included."""
    x = x.clone().requires_grad_()
    out = form(x, norm, conv)
    parameters = [*norm.parameters(), *conv.parameters()]
    return [out, *torch.autograd.grad(out.float().square().sum(), [x, *parameters])]


def plain(x: Tensor, norm: nn.GroupNorm, conv: nn.Conv2d) -> Tensor:
    return conv(F.silu(norm(x)))


def test_value_and_gradients_equal_those_of_the_modules(pair) -> None:
    norm, conv = (module.double() for module in pair)
    x = torch.randn(2, 32, 4, 6, dtype=torch.float64)
    torch.testing.assert_close(results(norm_silu_conv, x, norm, conv), results(plain, x, norm, conv))


def test_frozen_parameters_get_no_gradient(pair) -> None:
    norm, conv = pair
    conv.requires_grad_(False)
    x = torch.randn(2, 32, 4, 6, requires_grad=True)
    norm_silu_conv(x, norm, conv).sum().backward()
    assert x.grad is not None
    assert norm.weight.grad is not None
    assert conv.weight.grad is None


def test_in_channels_last_the_numbers_are_the_same_and_so_is_the_layout(pair) -> None:
    norm, conv = (module.double() for module in pair)
    x = torch.randn(2, 32, 4, 6, dtype=torch.float64)
    last = x.contiguous(memory_format=torch.channels_last)
    assert norm_silu_conv(last, norm, conv).is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(results(norm_silu_conv, last, norm, conv), results(plain, x, norm, conv))


def test_under_autocast_it_is_bfloat16_within_its_precision(pair) -> None:
    norm, conv = pair
    x = torch.randn(2, 32, 4, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert norm_silu_conv(x, norm, conv).dtype == torch.bfloat16
        ours = results(norm_silu_conv, x, norm, conv)
    for got, wanted in zip(ours[1:], results(plain, x, norm, conv)[1:], strict=True):
        assert got.dtype == wanted.dtype == torch.float32
        assert (got - wanted).norm() < 2e-2 * wanted.norm()


def test_one_map_is_kept_instead_of_three() -> None:
    norm, conv = group_norm(32), conv3x3(32, 32)
    x = torch.randn(2, 32, 16, 16, requires_grad=True)

    def kept(form) -> int:
        sizes: dict[int, int] = {}  # by address: what is kept twice counts once

        def note(tensor: Tensor) -> Tensor:
            sizes[tensor.data_ptr()] = tensor.numel() if tensor.shape == x.shape else 0
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            out = form(x, norm, conv)
        assert out.requires_grad
        return sum(sizes.values()) // x.numel()

    assert kept(plain) == 3
    assert kept(norm_silu_conv) == 1
