"""Intervals: of a share, of a mean over images, of a score over seeds."""

from __future__ import annotations

import numpy as np
import pytest

from harness.metrics.interval import bootstrap_interval, spread_of, wilson_interval


def test_the_interval_holds_the_share_and_stays_within_0_and_1() -> None:
    for hits in range(11):
        low, high = wilson_interval(hits, 10)
        assert 0.0 <= low <= hits / 10 <= high <= 1.0


def test_a_textbook_value() -> None:
    assert wilson_interval(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)


def test_all_hits_are_not_certainty() -> None:
    assert wilson_interval(10, 10)[0] < 0.8


def test_the_interval_shrinks_with_the_count() -> None:
    narrow, wide = wilson_interval(900, 1000), wilson_interval(9, 10)
    assert narrow[1] - narrow[0] < (wide[1] - wide[0]) / 5


@pytest.mark.parametrize(("hits", "count"), [(-1, 3), (4, 3), (0, 0)])
def test_an_impossible_share_is_refused(hits: int, count: int) -> None:
    with pytest.raises(ValueError, match="a share needs"):
        wilson_interval(hits, count)


def test_the_bootstrap_of_a_mean_is_the_normal_interval_where_that_holds() -> None:
    values = np.random.default_rng(0).normal(3.0, 2.0, 2_000)
    low, high = bootstrap_interval(values) or (0.0, 0.0)
    margin = 1.96 * values.std() / np.sqrt(len(values))
    assert (low, high) == pytest.approx((values.mean() - margin, values.mean() + margin), abs=0.1 * margin)


def test_the_bootstrap_repeats_itself_and_needs_two_images() -> None:
    values = np.arange(9.0)
    assert bootstrap_interval(values) == bootstrap_interval(values)
    assert bootstrap_interval(values) != bootstrap_interval(values, seed=1)
    assert bootstrap_interval(values[:1]) is None


def test_the_spread_over_seeds_is_the_sample_deviation_with_students_interval() -> None:
    spread = spread_of([1.0, 2.0, 3.0])
    assert (spread.mean, spread.std, spread.n) == (2.0, 1.0, 3)
    assert spread.interval == pytest.approx((2.0 - 4.303 / 3**0.5, 2.0 + 4.303 / 3**0.5), abs=1e-3)
    with pytest.raises(ValueError, match="at least 2 scores"):
        spread_of([1.0])
