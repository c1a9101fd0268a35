from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gear.data.base import BadSample, Sample
from gear.data.loader import Batch, BatchSplit, batches
from gear.data.order import BatchOrder
from harness.contract.errors import BadSamples, UserError
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


def test_pieces_of_processes_and_micro_batches_make_up_the_batch_that_one_process_sees() -> None:
    """Labels, pixels and the draws that drop conditions alike."""

    def stream(**share: int) -> list[Batch]:
        parts = share.get("parts", 1)
        return list(
            batches(tiny.Noise(), BatchOrder(10, 8), start=0, stop=3 * parts, split=BatchSplit(**share), num_workers=0)
        )

    whole = stream()
    for parts, world_size in ((2, 1), (1, 4), (2, 2)):
        streams = [stream(rank=rank, world_size=world_size, parts=parts) for rank in range(world_size)]
        for number, batch in enumerate(whole):
            pieces = [streams[rank][number * parts + part] for part in range(parts) for rank in range(world_size)]
            for name in ("ids", "labels", "images_u8", "null_draws"):
                together = torch.cat([getattr(piece, name) for piece in pieces])
                assert torch.equal(together, getattr(batch, name)), name


def test_conditions_are_dropped_as_often_as_asked() -> None:
    order = BatchOrder(2000, 8)
    draws = np.array([order.null_draw(0, index) for index in range(2000)])
    assert abs((draws < 0.1).mean() - 0.1) < 0.03
    assert order.null_draw(0, 5) == order.null_draw(1, 5), "the batch within an epoch does not matter"
    assert order.null_draw(0, 5) != order.null_draw(order.batches_per_epoch, 5)


class HalfBroken(tiny.Noise):
    """Odd samples cannot be used."""

    def item(self, index: int, rng: np.random.Generator) -> Sample:
        if index % 2:
            raise BadSample(f"sample {index} is torn")
        return super().item(index, rng)


def test_a_bad_sample_is_named_and_replaced_by_another() -> None:
    (batch,) = batches(HalfBroken(), BatchOrder(10, 10), start=0, stop=1)
    assert not (batch.ids % 2).any()
    assert sorted(batch.bad) == [f"sample {index} is torn" for index in (1, 3, 5, 7, 9)]


class Broken(tiny.Noise):
    def item(self, index: int, rng: np.random.Generator) -> Sample:
        raise BadSample(f"sample {index} is torn")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_data_set_of_bad_samples_is_refused_in_one_sentence(workers: int) -> None:
    with pytest.raises(BadSamples, match=r"^100 samples in a row cannot be used, the last because: sample .* set\.$"):
        list(batches(Broken(), BatchOrder(10, 4), start=0, stop=1, num_workers=workers))


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
    with pytest.raises(UserError, match="cannot be split into 3 equal pieces"):
        BatchOrder(30, 4).indices(0, 0, 3)
    with pytest.raises(UserError, match="cannot be split into 3 equal pieces"):
        next(batches(Broken(), BatchOrder(30, 4), start=0, stop=1, split=BatchSplit(world_size=3), num_workers=1))
