"""Permutations entry by entry."""

from __future__ import annotations

import numpy as np
import pytest

from gear.data.permutation import LARGEST_DRAWN, computed, permuted


@pytest.mark.parametrize("num_items", [1, 2, 3, 10, 50, 64, 65, 1000, 4097])
def test_a_computed_permutation_names_every_entry_once(num_items: int) -> None:
    assert sorted(computed(np.arange(num_items), num_items, (1, 2))) == list(range(num_items))


def test_single_entries_equal_the_whole_and_another_key_gives_another_permutation() -> None:
    whole = computed(np.arange(1000), 1000, (7, 0, 3))
    np.testing.assert_array_equal(computed(np.array([999, 0, 500]), 1000, (7, 0, 3)), whole[[999, 0, 500]])
    assert (computed(np.arange(1000), 1000, (7, 0, 4)) == whole).mean() < 0.02


def test_every_entry_is_as_likely_everywhere() -> None:
    """Chi-square over 4,000 keys, 12 entries at 12 places: 11 x 12 degrees of freedom or so, mean 132, spread 16."""
    counts = np.zeros((12, 12))
    for key in range(4000):
        counts[np.arange(12), computed(np.arange(12), 12, (key,))] += 1
    expected = 4000 / 12
    assert ((counts - expected) ** 2 / expected).sum() < 132 + 6 * 16


def test_neighbours_end_up_far_apart() -> None:
    entries = computed(np.arange(100_000), 100_000_000, (0, 0, 0))
    assert abs(np.corrcoef(entries[:-1], entries[1:])[0, 1]) < 0.02
    assert np.histogram(entries, bins=10, range=(0, 100_000_000))[0].std() < 5 * np.sqrt(10_000)


def test_a_large_set_needs_no_memory_and_a_small_one_is_drawn() -> None:
    first = permuted(np.arange(256), 10**11, (0, 0, 0))
    assert len(np.unique(first)) == 256
    assert first.max() < 10**11
    small = permuted(np.arange(100), 100, (0, 0, 0))
    np.testing.assert_array_equal(small, np.random.default_rng((0, 0, 0)).permutation(100))
    assert LARGEST_DRAWN < 10**8
