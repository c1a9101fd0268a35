"""Manifold metrics: which way round precision and recall are, invariances, and the ADM evaluator's rounding."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from harness.metrics.distances import (
    euclidean_distances,
    half_precision_squared_distances,
    squared_distances,
)
from harness.metrics.prdc import (
    adm_precision_recall,
    adm_radii,
    containment,
    draw_rows,
    exact_precision_recall,
    neighbour_radii,
    prdc,
    prdc_with_counts,
)

GOLDEN = Path(__file__).parents[2] / "golden"


def normal(count: int, width: int, seed: int, *, scale: float = 1.0) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=(count, width)) * scale).astype(np.float32)


def test_a_mode_collapsed_sample_has_high_precision_and_low_recall() -> None:
    reference = normal(500, 8, 0)
    collapsed = reference[0] + normal(500, 8, 1, scale=1e-3)
    for inside in (prdc(reference, collapsed), adm_precision_recall(reference, collapsed)):
        assert inside.precision == 1.0
        assert inside.recall < 0.02


def test_a_sample_spread_far_too_wide_has_low_precision_and_high_recall() -> None:
    reference, spread = normal(500, 8, 0), normal(500, 8, 1, scale=4.0)
    for inside in (prdc(reference, spread), adm_precision_recall(reference, spread)):
        assert inside.precision < 0.3
        assert inside.recall > 0.9


def test_sets_from_one_distribution_cover_each_other() -> None:
    result = prdc(normal(800, 4, 0), normal(800, 4, 1))
    assert min(result.precision, result.recall, result.coverage) > 0.9
    assert result.density == pytest.approx(1.0, abs=0.1)


def test_sets_far_apart_share_nothing() -> None:
    reference, far = normal(100, 4, 0), normal(100, 4, 1) + 1000.0
    result = prdc(reference, far)
    assert (result.precision, result.recall, result.density, result.coverage) == (0.0, 0.0, 0.0, 0.0)


def test_swapping_the_sets_swaps_precision_and_recall() -> None:
    a, b = normal(150, 6, 0), normal(120, 6, 1, scale=1.5)
    assert (prdc(a, b).precision, prdc(a, b).recall) == (prdc(b, a).recall, prdc(b, a).precision)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 70), st.integers(1, 90))
def test_blocks_change_nothing(seed: int, row_block: int, column_block: int) -> None:
    a, b = normal(60, 5, seed), normal(80, 5, seed + 1)
    radii = neighbour_radii(a, 4), neighbour_radii(b, 4)
    whole = containment(a, b, *radii)
    blocked = containment(a, b, *radii, row_block=row_block, column_block=column_block)
    np.testing.assert_array_equal(blocked.reference_balls, whole.reference_balls)
    np.testing.assert_array_equal(blocked.sample_balls, whole.sample_balls)
    np.testing.assert_allclose(
        neighbour_radii(a, 4, row_block=row_block, column_block=column_block), radii[0], rtol=1e-6
    )


def test_the_order_of_the_images_changes_nothing() -> None:
    reference, sample = normal(200, 6, 0), normal(150, 6, 1)
    shuffled = sample[np.random.default_rng(2).permutation(len(sample))]
    assert prdc(reference, shuffled) == prdc(reference, sample)


def test_distances_are_those_of_the_definition_far_from_the_origin_too() -> None:
    a, b = normal(40, 7, 0).astype(np.float64), normal(30, 7, 1).astype(np.float64)
    np.testing.assert_allclose(euclidean_distances(a, b), cdist(a, b), rtol=1e-10)
    assert prdc(a + 1e5, b + 1e5) == prdc(a, b)


def test_the_radius_is_the_distance_to_the_kth_other_point() -> None:
    line = np.array([[0.0], [1.0], [3.0], [7.0]])
    np.testing.assert_allclose(neighbour_radii(line, 2), [3.0, 2.0, 3.0, 6.0])


def test_of_equal_points_one_is_the_others_neighbour_at_distance_zero() -> None:
    np.testing.assert_array_equal(neighbour_radii(np.array([[5.0], [5.0], [9.0]]), 1), [0.0, 0.0, 4.0])


def test_a_ball_is_open_in_prdc_and_closed_in_the_adm_evaluator() -> None:
    reference = np.array([[0.0], [1.0]])
    on_the_edge = np.array([[2.0], [2.5]])
    radii = np.ones(2), np.zeros(2)
    assert containment(reference, on_the_edge, *radii).precision == 0.0
    assert containment(reference, on_the_edge, *radii, closed=True).precision == 0.5


def test_too_few_images_for_the_neighbour_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 6 images, got 5"):
        prdc(normal(5, 3, 0), normal(50, 3, 1))


def test_half_precision_rounds_every_operation_as_float16_arrays_do() -> None:
    u, v = normal(30, 48, 0, scale=3.0), normal(20, 48, 1, scale=3.0)
    u16, v16 = u.astype(np.float16), v.astype(np.float16)
    norm_u = np.square(u16).astype(np.float32).sum(1).astype(np.float16)[:, None]
    norm_v = np.square(v16).astype(np.float32).sum(1).astype(np.float16)[None, :]
    product = (u16.astype(np.float32) @ v16.astype(np.float32).T).astype(np.float16)
    by_arrays = np.maximum(norm_u - np.float16(2) * product + norm_v, np.float16(0))
    got = half_precision_squared_distances(u, v)
    np.testing.assert_array_equal(got, by_arrays.astype(np.float32))
    assert not np.allclose(got, squared_distances(u, v), rtol=1e-4)


def test_an_overflowing_block_is_computed_again_from_the_features_as_given() -> None:
    u, v = normal(12, 16, 0, scale=100.0), normal(9, 16, 1, scale=100.0)
    assert (np.square(u).sum(1) > 65504).any()
    np.testing.assert_allclose(half_precision_squared_distances(u, v), squared_distances(u, v), rtol=1e-4)


def test_only_the_overflowing_block_leaves_float16() -> None:
    small, large = normal(8, 16, 0), normal(8, 16, 1, scale=100.0)
    mixed = np.concatenate([small, large])
    radii = neighbour_radii(mixed, 2, distance=half_precision_squared_distances, row_block=8, column_block=8)
    alone = neighbour_radii(small, 2, distance=half_precision_squared_distances)
    np.testing.assert_array_equal(radii[:8], alone)


def test_drawing_more_rows_than_there_are_draws_nothing() -> None:
    rng = np.random.RandomState(0)
    x = normal(5, 2, 0)
    assert draw_rows(x, 5, rng) is x
    assert rng.random() == np.random.RandomState(0).random()
    assert len(draw_rows(x, 3, rng)) == 3


def test_prdc_meets_the_reference_evaluator() -> None:
    """`tests/golden/gpic`: values measured on the reference's evaluator; exact up to ties."""
    case = json.loads((GOLDEN / "gpic" / "basic_equal_n.json").read_text())
    with np.load(GOLDEN / "gpic" / "basic_equal_n_ref.npz") as archive:
        reference = archive["dino_embeddings"]
    with np.load(GOLDEN / "gpic" / "basic_equal_n_sample.npz") as archive:
        sample = archive["features"]
    assert vars(prdc(reference, sample, k=5)) == pytest.approx(case["extra"]["prdc_all_k5"])
    assert vars(prdc(reference, sample, k=3)) == pytest.approx(case["extra"]["prdc_all_k3"])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 40))
def test_computing_each_pair_once_changes_no_radius(seed: int, block: int) -> None:
    features = normal(50, 6, seed)
    blocks = {"distance": squared_distances, "row_block": block, "column_block": block}
    once, twice = (neighbour_radii(features, 3, symmetric=symmetric, **blocks) for symmetric in (True, False))
    np.testing.assert_allclose(once, twice, rtol=1e-12)


def test_a_symmetric_pass_needs_square_blocks() -> None:
    with pytest.raises(ValueError, match="square blocks"):
        neighbour_radii(normal(20, 3, 0), 2, symmetric=True, row_block=5, column_block=7)


def test_exact_precision_and_recall_are_those_of_distances_by_subtraction() -> None:
    reference, sample = normal(150, 20, 0) + 5.0, normal(130, 20, 1, scale=1.1) + 5.0
    within_reference, within_sample, between = (
        cdist(reference, reference),
        cdist(sample, sample),
        cdist(reference, sample),
    )
    radii = np.sort(within_reference, axis=1)[:, 3], np.sort(within_sample, axis=1)[:, 3]
    inside = exact_precision_recall(reference, sample)
    assert inside.precision == (between <= radii[0][:, None]).any(axis=0).mean()
    assert inside.recall == (between <= radii[1][None]).any(axis=1).mean()


def test_exact_precision_and_recall_do_not_depend_on_what_all_features_have_in_common() -> None:
    reference, sample = normal(150, 20, 0).astype(np.float32), normal(130, 20, 1, scale=1.1).astype(np.float32)
    whole = exact_precision_recall(reference, sample)
    moved = exact_precision_recall(reference + np.float32(64), sample + np.float32(64))
    assert (moved.precision, moved.recall) == pytest.approx((whole.precision, whole.recall), abs=1 / 130)
    with pytest.raises(ValueError, match="at least 4 images, got 3"):
        exact_precision_recall(reference, sample[:3])


def test_exact_balls_are_closed() -> None:
    same = np.full((40, 24), 3.0, dtype=np.float32)
    inside = exact_precision_recall(same, same[:30])
    assert (inside.precision, inside.recall) == (1.0, 1.0)
    apart = exact_precision_recall(same, same[:30] + np.float32(1.0))
    assert (apart.precision, apart.recall) == (0.0, 0.0)


def test_a_reference_whose_radii_are_known_is_not_computed_again() -> None:
    reference, sample = normal(150, 20, 0), normal(130, 20, 1)
    kept = adm_precision_recall(reference, sample, reference_radii=adm_radii(reference))
    fresh = adm_precision_recall(reference, sample)
    assert (kept.precision, kept.recall) == (fresh.precision, fresh.recall)
    assert adm_precision_recall(reference, sample, reference_radii=np.zeros(150)).precision == 0.0


def test_the_counts_behind_prdc_are_its_means() -> None:
    manifold, inside = prdc_with_counts(normal(90, 5, 0), normal(80, 5, 1))
    assert manifold.density == inside.reference_balls.mean() / 5
    assert manifold.precision == (inside.reference_balls > 0).mean()
