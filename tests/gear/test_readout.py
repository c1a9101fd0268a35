from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.special import softmax
from scipy.stats import entropy

from gear import numerics
from gear.readout import (
    codebook_usage,
    frozen,
    hard_codes,
    posterior_statistics,
    soft_codes,
    straight_through,
)
from gear.tokenizers import TokenizerConfig, build_tokenizer
from gear.tokenizers.distances import Distances
from tests.gear import tiny

IMAGES, TOKENS, CODES, WIDTH = 2, 9, 7, 5
_SMALL = {"ch": 32, "num_res_blocks": 1, "ch_mult": [1, 1], "codebook_size": 16}
LFQ = {"family": "lfq", **_SMALL}
IBQ = {"family": "ibq", **_SMALL, "codebook_embed_dim": 8, "z_channels": 16, "resolution": 8}


@pytest.fixture(params=[1, 40, 1000], ids="{} numbers at a time".format)
def distances(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Distances:
    """In float64 and with gradients, read in pieces of several sizes."""
    monkeypatch.setitem(numerics.CHUNK_ELEMENTS, "cpu", request.param)
    generator = torch.Generator().manual_seed(0)
    rows, codes = (torch.randn(n, 3, generator=generator, dtype=torch.float64) for n in (IMAGES * TOKENS, CODES))
    return Distances(queries=rows.requires_grad_(), codes=codes.requires_grad_(), squared=True)


@pytest.fixture
def table() -> torch.Tensor:
    """Token embeddings."""
    return torch.randn(CODES, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()


def same_gradients(ours: torch.Tensor, plain: torch.Tensor, *inputs: torch.Tensor) -> None:
    weights = torch.randn(ours.shape, dtype=ours.dtype, generator=torch.Generator().manual_seed(2))
    got, wanted = (torch.autograd.grad((value * weights).sum(), inputs) for value in (ours, plain))
    torch.testing.assert_close(got, wanted)


def test_soft_codes_are_the_softmax_of_the_negative_distances(distances: Distances) -> None:
    soft = soft_codes(distances, IMAGES, temperature=0.3).probs()
    assert soft.shape == (IMAGES, TOKENS, CODES)
    d = distances.matrix().detach().numpy()
    np.testing.assert_allclose(soft.detach().reshape(-1, CODES), softmax(-d / 0.3, axis=1), rtol=1e-5)


def test_soft_codes_become_the_hard_codes_as_the_temperature_falls(distances: Distances) -> None:
    hard = hard_codes(distances.nearest(), IMAGES)
    soft = soft_codes(distances, IMAGES, temperature=1e-4).probs()
    assert torch.equal(soft.argmax(-1), hard)
    assert soft.max(-1).values.min() > 0.99


@pytest.mark.parametrize("temperature", [1.0, 0.05])
def test_the_read_out_is_the_distributions_times_the_embeddings(
    distances: Distances, table: torch.Tensor, temperature: float
) -> None:
    soft = soft_codes(distances, IMAGES, temperature)
    plain = torch.softmax(-distances.matrix() / temperature, -1).view(IMAGES, TOKENS, CODES) @ table
    torch.testing.assert_close(soft.mix(table), plain)
    same_gradients(soft.mix(table), plain, distances.queries, distances.codes, table)
    frozen_table = table.detach()
    same_gradients(soft.mix(frozen_table), soft.probs() @ frozen_table, distances.queries, distances.codes)


def test_the_last_token_of_every_image_can_be_left_out(distances: Distances, table: torch.Tensor) -> None:
    soft = soft_codes(distances, IMAGES, 0.5)
    cut = soft[:, :-1]
    assert torch.equal(cut.probs(), soft.probs()[:, :-1])
    same_gradients(cut.mix(table), soft.probs()[:, :-1] @ table, distances.queries, distances.codes, table)


@pytest.mark.parametrize("family", ["vq", "lfq", "ibq"])
def test_soft_codes_reach_the_encoder_and_the_codebook_of_every_family(family: str) -> None:
    """As the posterior written out does, in float64."""
    values = {"vq": tiny.VALUES["tokenizer"], "lfq": LFQ, "ibq": IBQ}[family]
    tokenizer = build_tokenizer(TokenizerConfig.from_dict(values)).double()
    code = tokenizer.encode(tiny.batch().pixels.double())
    soft = soft_codes(code.distances, 4, 0.1)
    table = torch.randn(tokenizer.config.num_codes, WIDTH, dtype=torch.float64)
    plain = torch.softmax(-code.code_distances / 0.1, -1).unflatten(0, (4, -1)) @ table
    trained = [p for name, p in tokenizer.named_parameters() if not name.startswith(("decoder", "post_quant"))]
    weights = torch.randn(plain.shape, dtype=torch.float64)
    got, wanted = (
        torch.autograd.grad((v * weights).sum(), trained, retain_graph=True) for v in (soft.mix(table), plain)
    )
    torch.testing.assert_close(got, wanted)
    assert all(gradient.abs().sum() > 0 for gradient in wanted[:1] + wanted[-1:])


def test_under_autocast_the_mixture_has_its_type_and_the_distributions_stay_sharp() -> None:
    distances = Distances(queries=torch.randn(8, 3), codes=torch.randn(CODES, 3))
    table, soft = torch.randn(CODES, WIDTH), soft_codes(distances, 2, 0.005)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = soft.mix(table)
    assert mixed.dtype == torch.bfloat16
    torch.testing.assert_close(mixed.float(), soft.mix(table), atol=2e-2, rtol=2e-2)


def test_hard_codes_carry_no_gradient() -> None:
    tokenizer = build_tokenizer(tiny.config().tokenizer)
    assert not hard_codes(tokenizer.encode(tiny.batch().pixels).code_ids, 4).requires_grad


def test_straight_through_has_the_value_of_the_hard_code_and_the_gradient_of_the_soft_one(
    distances: Distances, table: torch.Tensor
) -> None:
    hard = hard_codes(distances.nearest(), IMAGES)
    soft = soft_codes(distances, IMAGES, 0.5)
    mixed = straight_through(soft, hard)
    torch.testing.assert_close(mixed.probs(), F.one_hot(hard, CODES).double())
    same_gradients(mixed.probs(), soft.probs(), distances.queries, distances.codes)
    torch.testing.assert_close(mixed.mix(table), F.embedding(hard, table))
    same_gradients(mixed.mix(table), mixed.probs() @ table, distances.queries, distances.codes, table)
    assert torch.equal(mixed[:, :-1].hard, hard[:, :-1])


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


def test_posterior_statistics_agree_with_scipy(distances: Distances) -> None:
    for temperature, got in zip((1.0, 0.2), posterior_statistics(distances, [1.0, 0.2]), strict=True):
        posterior = softmax(-distances.matrix().detach().numpy() / temperature, axis=1)
        want = entropy(posterior, axis=1).mean()
        assert float(got.entropy_nats) == pytest.approx(want, rel=1e-5)
        assert float(got.effective_size) == pytest.approx(np.exp(want), rel=1e-5)
        assert float(got.top_mass[1]) == pytest.approx(posterior.max(1).mean(), rel=1e-5)
        assert float(got.top_mass[1000]) == pytest.approx(1.0), "k is capped at the number of codes"


def test_the_mass_of_the_likeliest_codes_is_counted_from_the_top() -> None:
    probs = torch.tensor([[0.5, 0.3, 0.2] + [0.0] * 9]).clamp_min(1e-30)
    (got,) = posterior_statistics(Distances(queries=probs.log(), codes=torch.eye(12)))
    assert float(got.top_mass[1]) == pytest.approx(0.5)
    assert float(got.top_mass[10]) == pytest.approx(1.0)


def test_a_certain_posterior_has_zero_entropy_and_no_nan() -> None:
    (got,) = posterior_statistics(Distances(queries=torch.tensor([[0.0, -1e6], [-1e6, 0.0]]), codes=torch.eye(2)))
    assert float(got.entropy_nats) == 0.0
    assert float(got.effective_size) == 1.0


def test_codebook_usage_counts_distinct_codes() -> None:
    assert float(codebook_usage(torch.tensor([[3, 3], [0, 3]]), 8)) == 0.25
