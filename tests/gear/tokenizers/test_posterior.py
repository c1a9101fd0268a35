"""What is computed from the posterior in chunks, against the posterior written out, in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gear import numerics
from gear.tokenizers.posterior import Posterior

ROWS, CODES, CHANNELS, WIDTH = 12, 10, 3, 4


@pytest.fixture(params=[1, 25, 70, 1000], ids="{} numbers at a time".format)
def chunk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Sizes that divide 12 rows of 10 codes into 12, 6, 2 (unequal) and 1 pieces."""
    monkeypatch.setitem(numerics.CHUNK_ELEMENTS, "cpu", request.param)
    return request.param


def factors() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = ((ROWS, CHANNELS), (CHANNELS, CODES), (CODES, WIDTH))
    queries, keys, values = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)
    return queries.requires_grad_(), keys.requires_grad_(), values.requires_grad_()


def gradients(scalar: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(scalar, inputs)


def test_a_read_equals_the_posterior_times_the_values(chunk: int) -> None:
    queries, keys, values = factors()
    weights = torch.randn(ROWS, WIDTH, dtype=torch.float64)
    chunked, plain = Posterior(queries, keys).read(values), torch.softmax(queries @ keys, -1) @ values
    torch.testing.assert_close(chunked, plain)
    ours = gradients((chunked * weights).sum(), queries, keys, values)
    torch.testing.assert_close(ours, gradients((plain * weights).sum(), queries, keys, values))


def test_frozen_values_get_no_gradient_and_the_factors_keep_theirs(chunk: int) -> None:
    queries, keys, values = factors()
    frozen = values.detach()
    Posterior(queries, keys).read(frozen).square().sum().backward()
    assert frozen.grad is None
    wanted = gradients((torch.softmax(queries @ keys, -1) @ frozen).square().sum(), queries, keys)
    torch.testing.assert_close((queries.grad, keys.grad), wanted)


@pytest.mark.parametrize("groups", [1, 2, 3])
@pytest.mark.parametrize("temperature", [1.0, 0.01])
def test_entropy_and_mean_equal_those_of_the_posterior(chunk: int, groups: int, temperature: float) -> None:
    queries, keys, _ = factors()
    log_probs = torch.log_softmax(queries / temperature @ keys, -1)
    probs = log_probs.exp()
    plain = -(probs * log_probs).sum(-1).mean(), probs.view(-1, groups, CODES).mean(0)
    chunked = Posterior(queries / temperature, keys).entropy_and_mean(groups)
    torch.testing.assert_close(chunked, plain)
    weights = torch.randn(groups, CODES, dtype=torch.float64)
    ours = gradients(2.0 * chunked[0] + (weights * chunked[1]).sum(), queries, keys)
    torch.testing.assert_close(ours, gradients(2.0 * plain[0] + (weights * plain[1]).sum(), queries, keys))


def test_autograd_s_own_numerical_check_agrees(chunk: int) -> None:
    queries, keys, values = factors()
    assert torch.autograd.gradcheck(lambda q, k, v: Posterior(q, k).read(v), (queries, keys, values))
    assert torch.autograd.gradcheck(lambda q, k: Posterior(q, k).entropy_and_mean(2), (queries, keys))


def test_the_likeliest_code_is_the_arg_max(chunk: int) -> None:
    queries, keys, _ = factors()
    assert torch.equal(Posterior(queries, keys).likeliest(), (queries @ keys).argmax(-1))


def test_low_precision_around_it_does_not_blur_the_posterior() -> None:
    """At a temperature of 0.005 logits rounded to bfloat16 would mix up neighbouring codes."""
    queries, keys, values = (factor.detach().float() for factor in factors())
    sharp = Posterior(queries / 0.005, keys)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under_autocast = sharp.read(values)
    assert torch.equal(under_autocast, sharp.read(values))
    half = sharp.read(values.bfloat16())
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), sharp.read(values), atol=2e-2, rtol=2e-2)


def test_what_is_kept_for_the_backward_pass_does_not_grow_with_rows_times_codes() -> None:
    kept = []

    def note(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        queries, keys, values = factors()
        Posterior(queries, keys).read(values)
        Posterior(queries, keys).entropy_and_mean()
    assert kept
    assert max(kept) < ROWS * CODES
