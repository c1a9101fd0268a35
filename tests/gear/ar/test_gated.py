"""The second half of a SwiGLU as one step, against its parts."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gear.ar.gated import gated_linear

Form = Callable[[Tensor, Tensor, nn.Module], Tensor]


def parts(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, nn.Linear]:
    torch.manual_seed(0)
    gate, up = (torch.randn(2, 3, 6, dtype=dtype).requires_grad_() for _ in range(2))
    return gate, up, nn.Linear(6, 4, bias=False, dtype=dtype)


def plain(gate: Tensor, up: Tensor, linear: nn.Module) -> Tensor:
    return linear(F.silu(gate) * up)


def results(form: Form, gate: Tensor, up: Tensor, linear: nn.Linear) -> list[Tensor]:
    out = form(gate, up, linear)
    return [out, *torch.autograd.grad(out.float().square().sum(), [gate, up, linear.weight])]


def test_value_and_gradients_equal_those_of_the_parts() -> None:
    torch.testing.assert_close(results(gated_linear, *parts()), results(plain, *parts()))
    with torch.no_grad():
        assert torch.equal(gated_linear(*parts()), plain(*parts()))


def test_a_frozen_weight_gets_no_gradient() -> None:
    gate, up, linear = parts()
    gated_linear(gate, up, linear.requires_grad_(False)).sum().backward()
    assert gate.grad is not None
    assert up.grad is not None
    assert linear.weight.grad is None


def test_any_other_layer_is_called_as_it_is() -> None:
    gate, up, linear = parts()
    torch.testing.assert_close(gated_linear(gate, up, nn.Sequential(linear)), plain(gate, up, linear))


def test_under_autocast_it_is_bfloat16_and_its_weight_s_gradient_float32() -> None:
    gate, up, linear = parts(torch.float32)
    halves = (gate.detach().bfloat16().requires_grad_(), up.detach().bfloat16().requires_grad_(), linear)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours, wanted = results(gated_linear, *halves), results(plain, *halves)
    assert [tensor.dtype for tensor in ours] == [tensor.dtype for tensor in wanted]
    for got, want in zip(ours, wanted, strict=True):
        assert (got - want).float().norm() < 2e-2 * want.float().norm()


def test_two_hidden_maps_are_kept_instead_of_four() -> None:
    def kept(form: Form) -> int:
        gate, up, linear = parts()
        addresses = set()

        def note(tensor: Tensor) -> Tensor:
            if tensor.numel() == gate.numel():
                addresses.add(tensor.data_ptr())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            out = form(gate, up, linear)
        assert out.requires_grad
        return len(addresses)

    assert kept(plain) == 4
    assert kept(gated_linear) == 2
