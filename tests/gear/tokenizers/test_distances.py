"""Distances as factors: the matrix that they represent, and softmaxes of it."""

from __future__ import annotations

import pytest
import torch

from gear.tokenizers.distances import Distances


@pytest.fixture(params=[False, True], ids=["inner", "squared"])
def distances(request: pytest.FixtureRequest) -> Distances:
    generator = torch.Generator().manual_seed(0)
    queries, codes = (torch.randn(n, 3, generator=generator, dtype=torch.float64) for n in (7, 5))
    return Distances(queries=queries.requires_grad_(), codes=codes.requires_grad_(), squared=request.param)


def test_the_matrix_is_the_distance_of_every_pair(distances: Distances) -> None:
    q, c = distances.queries[:, None], distances.codes[None]
    wanted = (q - c).square().sum(-1) if distances.squared else -(q * c).sum(-1)
    torch.testing.assert_close(distances.matrix(), wanted)


def test_the_nearest_code_is_the_arg_min_of_the_matrix(distances: Distances) -> None:
    assert torch.equal(distances.nearest(), distances.matrix().argmin(dim=1))
    assert distances.num_codes == 5


@pytest.mark.parametrize("temperature", [1.0, 0.05])
def test_the_posterior_is_the_softmax_of_the_negative_matrix(distances: Distances, temperature: float) -> None:
    plain, factored = torch.softmax(-distances.matrix() / temperature, -1), distances.posterior(temperature).probs()
    torch.testing.assert_close(factored, plain)
    weights = torch.randn(7, 5, dtype=torch.float64)
    inputs = (distances.queries, distances.codes)
    wanted = torch.autograd.grad((plain * weights).sum(), inputs)
    torch.testing.assert_close(torch.autograd.grad((factored * weights).sum(), inputs), wanted)
