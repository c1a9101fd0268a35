"""One random stream per image, and the draw from it."""

from __future__ import annotations

import numpy as np
import torch

from gear.sampling.draws import PerImageDraw, inverse_cdf, most_likely, multinomial, uniforms


def test_a_stream_has_its_pinned_numbers():
    # Written down once: published samples depend on these numbers.
    assert uniforms([0, 2**64 - 1], 2).tolist() == [
        [0.011546754286331562, 0.24154919656271812],
        [0.23494158814525556, 0.7173107484541781],
    ]


def test_a_stream_depends_on_its_seed_alone_and_only_grows():
    few, many = uniforms([3], 4), uniforms([8, 3, 5], 9)
    assert np.array_equal(few[0], many[1, :4])
    assert not np.array_equal(many[0], many[1])


def test_streams_are_uniform():
    u = uniforms(range(200), 500)
    assert u.min() >= 0.0 and u.max() < 1.0
    assert abs(u.mean() - 0.5) < 0.005
    assert abs(np.corrcoef(u[:, 0], u[:, 1])[0, 1]) < 0.25
    assert np.abs(np.histogram(u, bins=10, range=(0, 1))[0] / u.size - 0.1).max() < 0.005


def test_a_draw_picks_the_interval_that_u_falls_in():
    probs = torch.tensor([0.25, 0.0, 0.5, 0.25]).expand(5, 4)
    u = torch.tensor([0.0, 0.2499, 0.25, 0.7499, 0.75], dtype=torch.float64)
    assert inverse_cdf(probs, u).tolist() == [0, 0, 2, 2, 3]


def test_an_impossible_token_is_never_drawn_at_either_end():
    probs = torch.tensor([[0.0, 0.3, 0.3, 0.3, 0.0]])
    largest = torch.tensor([1.0 - 2.0**-53], dtype=torch.float64)
    assert inverse_cdf(probs, torch.zeros(1, dtype=torch.float64)).tolist() == [1]
    assert inverse_cdf(probs, largest).tolist() == [3]


def test_draws_follow_the_probabilities():
    probs = torch.tensor([[0.1, 0.2, 0.0, 0.7]]).expand(20_000, 4)
    ids = PerImageDraw(range(20_000), 1)(probs, torch.tensor([0]))
    assert np.abs(np.bincount(ids, minlength=4) / 20_000 - [0.1, 0.2, 0.0, 0.7]).max() < 0.01


def test_a_nan_leaves_the_id_in_range():
    ids = inverse_cdf(torch.full((2, 3), torch.nan), torch.tensor([0.1, 0.9], dtype=torch.float64))
    assert ids.max() < 3 and ids.min() >= 0


def test_the_parity_draw_uses_the_global_generator():
    probs = torch.rand(6, 9, generator=torch.Generator().manual_seed(2))
    torch.manual_seed(5)
    ids = multinomial(probs, torch.tensor([0]))
    torch.manual_seed(5)
    assert torch.equal(ids, torch.multinomial(probs, 1)[:, 0])


def test_the_most_likely_token_needs_no_randomness():
    assert most_likely(torch.tensor([[0.2, 0.5, 0.3]]), torch.tensor([0])).tolist() == [1]
