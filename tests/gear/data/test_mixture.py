from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from gear.data.base import Sample
from gear.data.mixture import MixtureSource
from harness.contract.errors import UserError


class Numbers:
    """A source whose samples are identified by their labels."""

    def __init__(self, first: int, count: int) -> None:
        self.first, self.count = first, count

    def __len__(self) -> int:
        return self.count

    def item(self, index: int, rng: np.random.Generator) -> Sample:
        assert 0 <= index < self.count
        return Sample(np.zeros((3, 1, 1), np.uint8), self.first + index)


def epoch(mixture: MixtureSource, number: int = 0) -> list[int]:
    return [mixture.item(i, np.random.default_rng((number, i))).label for i in range(len(mixture))]


def test_each_source_gives_its_share_of_an_epoch() -> None:
    seen = epoch(MixtureSource([Numbers(0, 100), Numbers(1000, 300)], [3.0, 1.0]))
    assert len(seen) == 400 and sum(label < 1000 for label in seen) == 300


def test_shares_are_equal_where_none_are_given() -> None:
    seen = epoch(MixtureSource([Numbers(0, 30), Numbers(1000, 10)]))
    assert sum(label < 1000 for label in seen) == 20


def test_a_source_that_gives_less_than_it_has_shows_others_each_epoch_and_none_twice() -> None:
    mixture = MixtureSource([Numbers(0, 100), Numbers(1000, 20)], [1.0, 5.0])
    epochs = [[label for label in epoch(mixture, number) if label < 1000] for number in range(2)]
    assert all(len(set(seen)) == len(seen) == 20 for seen in epochs)
    assert epochs[0] != epochs[1]


def test_a_source_that_gives_more_than_it_has_repeats_all_evenly() -> None:
    mixture = MixtureSource([Numbers(0, 100), Numbers(1000, 20)], [1.0, 5.0])
    repeats = Counter(label for label in epoch(mixture) if label >= 1000)
    assert set(repeats.values()) == {5} and len(repeats) == 20


@pytest.mark.parametrize("shares", [[1.0], [0.0, 0.0], [-1.0, 2.0]])
def test_shares_that_make_no_sense_are_refused(shares: list[float]) -> None:
    with pytest.raises(UserError, match="data_probs"):
        MixtureSource([Numbers(0, 1), Numbers(1, 1)], shares)
