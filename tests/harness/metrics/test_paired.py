"""Paired comparison, on cases whose answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats

from harness.metrics.paired import Stratum, difference, mcnemar_exact, paired_interval, welch_interval


def stratum(*prompts: list[float], weight: float = 1.0) -> Stratum:
    return Stratum(
        sums=np.array([sum(prompt) for prompt in prompts]), counts=np.array(list(map(len, prompts))), weight=weight
    )


@pytest.mark.parametrize(("gained", "lost", "p"), [(0, 0, 1.0), (1, 0, 1.0), (6, 0, 0.03125), (10, 2, 0.03857421875)])
def test_mcnemars_exact_test_by_hand(gained: int, lost: int, p: float):
    assert mcnemar_exact(gained, lost) == p == mcnemar_exact(lost, gained)


def test_mcnemars_exact_test_is_the_binomial_test_also_for_thousands_of_flips():
    for gained, lost in [(3, 9), (55, 70), (1200, 1300)]:
        expected = scipy.stats.binomtest(gained, gained + lost).pvalue
        assert mcnemar_exact(gained, lost) == pytest.approx(expected, rel=1e-6)


def test_the_difference_is_the_weighted_mean_of_the_groups():
    easy, hard = stratum([1.0], [0.0], [0.0], [0.0], weight=3.0), stratum([1.0, 0.0], [0.0, 0.0])
    assert difference([easy]) == 0.25 == difference([hard])
    assert difference([easy, stratum([1.0])]) == (3 * 0.25 + 1.0) / 4


def test_the_interval_of_many_prompts_is_that_of_the_normal_approximation():
    prompts = [[1.0]] * 40 + [[0.0]] * 360
    low, high = paired_interval([stratum(*prompts)]) or (0.0, 0.0)
    error = math.sqrt(0.1 * 0.9 / 400)
    assert low == pytest.approx(0.1 - 1.96 * error, abs=0.004)
    assert high == pytest.approx(0.1 + 1.96 * error, abs=0.004)
    assert (low, high) == paired_interval([stratum(*prompts)])


def test_four_images_of_a_prompt_that_flip_together_count_as_one():
    once = [[1.0]] * 40 + [[0.0]] * 360
    assert paired_interval([stratum(*once)]) == paired_interval([stratum(*(prompt * 4 for prompt in once))])


def test_groups_are_drawn_within_themselves():
    # The two groups differ by a constant: there is nothing that could vary.
    groups = [stratum([1.0], [1.0], [1.0]), stratum([0.0], [0.0], [0.0])]
    assert paired_interval(groups) == (0.5, 0.5)


def test_a_group_of_one_prompt_has_no_interval():
    assert paired_interval([stratum([1.0], [0.0]), stratum([1.0])]) is None
    assert paired_interval([]) is None


def test_a_large_number_of_prompts_is_drawn_in_parts():
    random = np.random.default_rng(0)
    values = Stratum(sums=random.normal(0.0, 1.0, 10_000), counts=np.ones(10_000))
    low, high = paired_interval([values], num_resamples=1_000) or (0.0, 0.0)
    assert high - low == pytest.approx(2 * 1.96 / 100, rel=0.15)


def test_welchs_interval():
    before, after = [3.1, 3.4, 2.9], [4.0, 4.6, 4.1, 4.4]
    expected = scipy.stats.ttest_ind(after, before, equal_var=False).confidence_interval()
    assert welch_interval(before, after) == pytest.approx((expected.low, expected.high))
    assert welch_interval([1.0, 1.0], [2.0, 2.0]) == (1.0, 1.0)
    with pytest.raises(ValueError, match="at least 2"):
        welch_interval([1.0], [2.0, 3.0])
