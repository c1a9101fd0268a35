from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import softmax
from scipy.stats import entropy

from gear.readout import (
    codebook_usage,
    frozen,
    hard_codes,
    posterior_statistics,
    soft_codes,
    straight_through,
)
from gear.tokenizers import build_tokenizer
from tests.gear import tiny


@pytest.fixture
def distances() -> torch.Tensor:
    return torch.rand(2 * 9, 7, generator=torch.Generator().manual_seed(0)) * 4


def test_soft_codes_are_the_softmax_of_the_negative_distances(distances: torch.Tensor) -> None:
    soft = soft_codes(distances, 2, temperature=0.3)
    assert soft.shape == (2, 9, 7)
    np.testing.assert_allclose(soft.reshape(18, 7), softmax(-distances.numpy() / 0.3, axis=1), rtol=1e-5)


def test_soft_codes_become_the_hard_codes_as_the_temperature_falls(distances: torch.Tensor) -> None:
    hard = hard_codes(distances.argmin(1), 2)
    soft = soft_codes(distances, 2, temperature=1e-4)
    assert torch.equal(soft.argmax(-1), hard)
    assert soft.max(-1).values.min() > 0.99


def test_soft_codes_reach_the_encoder_and_the_codebook() -> None:
    tokenizer = build_tokenizer(tiny.config().tokenizer)
    code = tokenizer.encode(tiny.batch().pixels)
    weights = torch.randn(soft_codes(code.code_distances, 4, 0.1).shape)
    (soft_codes(code.code_distances, 4, 0.1) * weights).sum().backward()
    for name in ("encoder.conv_in.weight", "quant_conv.weight", "quantize.embedding.weight"):
        grad = dict(tokenizer.named_parameters())[name].grad
        assert grad is not None
        assert grad.abs().sum() > 0, name


def test_hard_codes_carry_no_gradient() -> None:
    tokenizer = build_tokenizer(tiny.config().tokenizer)
    assert not hard_codes(tokenizer.encode(tiny.batch().pixels).code_ids, 4).requires_grad


def test_straight_through_has_the_value_of_the_hard_code_and_the_gradient_of_the_soft_one(
    distances: torch.Tensor,
) -> None:
    distances.requires_grad_(True)
    soft = soft_codes(distances, 2, 0.5)
    hard = hard_codes(distances.argmin(1), 2)
    mixed = straight_through(soft, hard)
    torch.testing.assert_close(mixed, torch.nn.functional.one_hot(hard, 7).float())
    weights = torch.randn(mixed.shape)
    (through,) = torch.autograd.grad((mixed * weights).sum(), distances, retain_graph=True)
    (plain,) = torch.autograd.grad((soft * weights).sum(), distances)
    torch.testing.assert_close(through, plain)


def test_frozen_lets_gradients_through_but_leaves_none_behind() -> None:
    layer = torch.nn.Linear(3, 3)
    layer.bias.requires_grad_(False)
    x = torch.randn(2, 3, requires_grad=True)
    with frozen(layer):
        layer(x).sum().backward()
    assert x.grad is not None
    assert layer.weight.grad is None
    assert layer.weight.requires_grad, "what was trainable is trainable again"
    assert not layer.bias.requires_grad, "what was frozen stays frozen"


def test_posterior_statistics_agree_with_scipy(distances: torch.Tensor) -> None:
    got = posterior_statistics(distances, 0.2)
    posterior = softmax(-distances.numpy().astype(np.float64) / 0.2, axis=1)
    want = entropy(posterior, axis=1).mean()
    assert float(got.entropy_nats) == pytest.approx(want, rel=1e-5)
    assert float(got.effective_size) == pytest.approx(np.exp(want), rel=1e-5)
    assert float(got.top_mass[1]) == pytest.approx(posterior.max(1).mean(), rel=1e-5)
    assert float(got.top_mass[1000]) == pytest.approx(1.0), "k is capped at the number of codes"


def test_a_certain_posterior_has_zero_entropy_and_no_nan() -> None:
    got = posterior_statistics(torch.tensor([[0.0, 1e6], [1e6, 0.0]]))
    assert float(got.entropy_nats) == 0.0
    assert float(got.effective_size) == 1.0


def test_codebook_usage_counts_distinct_codes() -> None:
    assert float(codebook_usage(torch.tensor([[3, 3], [0, 3]]), 8)) == 0.25
