from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gear.data.loader import batches
from gear.data.order import BatchOrder
from harness.contract.errors import UserError
from tests.gear import tiny


@given(items=st.integers(8, 60), world=st.sampled_from([1, 2, 4]), seed=st.integers(0, 5), number=st.integers(0, 30))
def test_processes_together_see_the_batch_that_one_would(items: int, world: int, seed: int, number: int) -> None:
    order = BatchOrder(items, 8, seed)
    shares = [order.indices(number, rank, world) for rank in range(world)]
    np.testing.assert_array_equal(np.concatenate(shares), order.indices(number))


def test_an_epoch_shows_every_sample_at_most_once_and_the_next_one_in_another_order() -> None:
    order = BatchOrder(50, 8, seed=3)
    first = np.concatenate([order.indices(n) for n in range(order.batches_per_epoch)])
    second = np.concatenate([order.indices(n + order.batches_per_epoch) for n in range(order.batches_per_epoch)])
    assert len(np.unique(first)) == len(first) == 48
    assert not np.array_equal(first, second)


def test_augmentation_belongs_to_the_sample_and_the_epoch() -> None:
    order = BatchOrder(50, 8, seed=3)
    draw = order.rng(0, 7).random()
    assert order.rng(1, 7).random() == draw, "the batch that it happens to be in does not matter"
    assert order.rng(order.batches_per_epoch, 7).random() != draw
    assert order.rng(0, 8).random() != draw


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_may_start_anywhere(workers: int) -> None:
    order = BatchOrder(10, 4, seed=1)
    whole = list(batches(tiny.Noise(), order, start=0, stop=5, num_workers=workers))
    rest = list(batches(tiny.Noise(), order, start=3, stop=5, num_workers=workers))
    for a, b in zip(whole[3:], rest, strict=True):
        assert torch.equal(a.ids, b.ids)
        assert torch.equal(a.images_u8, b.images_u8)


def test_fetching_data_leaves_the_global_random_state_alone() -> None:
    before = torch.get_rng_state()
    list(batches(tiny.Noise(), BatchOrder(10, 4), start=0, stop=3))
    assert torch.equal(before, torch.get_rng_state())


def test_too_few_images_are_refused() -> None:
    with pytest.raises(UserError, match="holds 3 images, fewer than one batch of 4"):
        BatchOrder(3, 4)


def test_a_batch_that_processes_cannot_share_is_refused() -> None:
    with pytest.raises(UserError, match="cannot be shared by 3 processes"):
        BatchOrder(30, 4).indices(0, 0, 3)
