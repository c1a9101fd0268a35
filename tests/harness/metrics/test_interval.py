"""Confidence interval of a share."""

from __future__ import annotations

import pytest

from harness.metrics.interval import wilson_interval


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
