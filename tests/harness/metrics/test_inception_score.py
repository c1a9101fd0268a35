"""Inception Score: its bounds, its parts, and its NaN."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.special

from harness.metrics.inception_score import class_probabilities, inception_score


def test_sure_and_evenly_spread_classes_give_the_number_of_classes() -> None:
    sure = np.full((100, 10), 1e-12)
    sure[np.arange(100), np.arange(100) % 10] = 1.0
    assert inception_score(sure) == pytest.approx(10.0, rel=1e-6)


def test_the_same_guess_for_every_image_gives_one() -> None:
    assert inception_score(np.full((50, 4), 0.25)) == pytest.approx(1.0)


def test_parts_are_consecutive_and_a_short_last_part_counts_like_a_full_one() -> None:
    p = np.random.default_rng(0).dirichlet(np.ones(5), size=25)
    parts = [inception_score(part) for part in (p[:10], p[10:20], p[20:])]
    assert inception_score(p, split_size=10) == pytest.approx(np.mean(parts))


def test_the_order_within_a_part_does_not_matter() -> None:
    p = np.random.default_rng(0).dirichlet(np.ones(5), size=25)
    assert inception_score(p[::-1]) == pytest.approx(inception_score(p))


def test_a_probability_of_exactly_zero_makes_the_score_nan() -> None:
    assert math.isnan(inception_score(np.array([[1.0, 0.0], [0.5, 0.5]])))


def test_probabilities_are_the_softmax_without_a_bias_in_float32() -> None:
    rng = np.random.default_rng(0)
    pool, weights = rng.normal(size=(700, 6)).astype(np.float32), rng.normal(size=(6, 9)).astype(np.float32)
    got = class_probabilities(pool, weights)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, scipy.special.softmax(pool @ weights, axis=1), rtol=1e-5)


def test_large_logits_do_not_overflow() -> None:
    assert np.isfinite(class_probabilities(np.array([[1000.0]]), np.array([[1.0, -1.0]]))).all()


def test_no_images_have_no_score() -> None:
    with pytest.raises(ValueError, match="needs images"):
        inception_score(np.zeros((0, 4)))
