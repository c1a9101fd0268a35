"""Frechet distance: closed forms, invariances, and agreement with an independent matrix square root."""

from __future__ import annotations

import os

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_info

from harness.metrics import frechet
from harness.metrics.frechet import (
    Statistics,
    StatisticsAccumulator,
    frechet_distance,
    frechet_distances,
    root_trace,
    statistics,
    statistics_of,
)


def features(count: int, width: int, seed: int, *, shift: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(width, width))
    return (rng.normal(size=(count, width)) @ mixing + shift).astype(np.float32)


def test_identical_sets_are_at_distance_zero() -> None:
    x = features(200, 16, 0)
    assert frechet_distance(statistics(x), statistics(x)).value == pytest.approx(0.0, abs=1e-9)


def test_identical_sets_of_fewer_images_than_dimensions_are_at_distance_zero() -> None:
    x = features(20, 64, 0)
    assert frechet_distance(statistics(x), statistics(x)).value == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize(("count", "width"), [(300, 12), (60, 200)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shift", [0.0, 30.0])
def test_the_same_images_in_another_order_are_at_distance_zero_and_not_at_a_rounding_error(
    count: int, width: int, dtype: type, shift: float
) -> None:
    x = features(count, width, 0, shift=shift)
    one, other = (statistics(rows, mean_dtype=dtype) for rows in (x, x[::-1]))
    distance = frechet_distance(one, other)
    assert (distance.value, distance.mean_term, distance.covariance_term) == (0.0, 0.0, 0.0)


def test_a_small_distance_is_no_zero() -> None:
    x = features(300, 12, 0).astype(np.float64)
    distance = frechet_distance(statistics(x), statistics(x + 1e-4))
    assert distance.mean_term == pytest.approx(12e-8, rel=1e-6)


def test_a_shift_costs_its_squared_length_and_nothing_else() -> None:
    x = features(300, 8, 1).astype(np.float64)
    shift = np.arange(8.0)
    distance = frechet_distance(statistics(x), statistics(x + shift))
    assert distance.mean_term == pytest.approx(shift @ shift)
    assert distance.covariance_term == pytest.approx(0.0, abs=1e-9)


def test_diagonal_gaussians_have_the_closed_form() -> None:
    a, b = np.array([1.0, 4.0, 0.0]), np.array([9.0, 4.0, 25.0])
    mean = np.zeros(3)
    distance = frechet_distance(
        Statistics(mean=mean, covariance=np.diag(a)), Statistics(mean=mean, covariance=np.diag(b))
    )
    assert distance.value == pytest.approx(((np.sqrt(a) - np.sqrt(b)) ** 2).sum())


def test_full_rank_sets_agree_with_the_matrix_square_root_of_the_product() -> None:
    a, b = statistics(features(400, 24, 2)), statistics(features(300, 24, 3, shift=0.2))
    root = scipy.linalg.sqrtm(a.covariance @ b.covariance)
    spread = np.trace(a.covariance) + np.trace(b.covariance) - 2 * np.trace(root).real
    assert frechet_distance(a, b).covariance_term == pytest.approx(spread, rel=1e-9)


def test_rank_deficient_sets_agree_with_the_singular_values_of_the_centred_features() -> None:
    x, y = features(30, 128, 4).astype(np.float64), features(25, 128, 5).astype(np.float64)
    a, b = statistics(x), statistics(y)
    centred = [(z - z.mean(0)) / np.sqrt(len(z) - 1) for z in (x, y)]
    root_trace = np.linalg.svd(centred[0] @ centred[1].T, compute_uv=False).sum()
    expected = np.trace(a.covariance) + np.trace(b.covariance) - 2 * root_trace
    assert frechet_distance(a, b).covariance_term == pytest.approx(expected, rel=1e-10)


def test_the_distance_is_symmetric() -> None:
    a, b = statistics(features(100, 12, 6)), statistics(features(90, 12, 7))
    assert frechet_distance(a, b).value == pytest.approx(frechet_distance(b, a).value, rel=1e-12)


@pytest.mark.parametrize("cores", [1, 2, 8])
def test_distances_asked_for_together_are_those_asked_for_alone(cores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In turn or side by side, from statistics or from features; BLAS has its threads back afterwards."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    threads = [library["num_threads"] for library in threadpool_info()]
    wide, narrow = ((features(300, width, 0), features(250, width, 1, shift=3.0)) for width in (40, 12))
    together = frechet_distances([(statistics(wide[0]), wide[1]), narrow], mean_dtype=np.float32)
    assert [library["num_threads"] for library in threadpool_info()] == threads
    alone = [
        frechet_distance(statistics(wide[0]), statistics(wide[1], mean_dtype=np.float32)),
        frechet_distance(*(statistics(one, mean_dtype=np.float32) for one in narrow)),
    ]
    for distance, expected in zip(together, alone, strict=True):
        assert distance.mean_term == expected.mean_term
        assert distance.covariance_term == pytest.approx(expected.covariance_term, rel=1e-10)


def test_no_pairs_have_no_distances() -> None:
    assert frechet_distances([]) == []


def test_pairs_of_different_widths_are_refused_from_a_thread_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)
    with pytest.raises(ValueError, match="width 3 and 4"):
        frechet_distances([(features(9, 3, 0), features(9, 4, 0))])


def test_either_set_may_have_fewer_images_than_features() -> None:
    many, few = statistics(features(400, 40, 0)), statistics(features(21, 40, 1))
    values = np.linalg.eigvals(many.covariance @ few.covariance).real
    expected = np.sqrt(np.sort(values)[-20:]).sum()  # the rank of the smaller
    for pair in ((many.covariance, few.covariance), (few.covariance, many.covariance)):
        np.testing.assert_allclose(frechet.root_trace(*pair), expected, rtol=1e-9)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=8), st.integers(0, 2**31))
def test_statistics_do_not_depend_on_how_the_stream_is_cut(batch_sizes: list[int], seed: int) -> None:
    x = features(sum(batch_sizes) + 2, 5, seed, shift=100.0)
    cuts = np.cumsum(batch_sizes)
    streamed = statistics_of(np.split(x, cuts))
    np.testing.assert_allclose(streamed.mean, x.mean(axis=0, dtype=np.float64), rtol=1e-12)
    np.testing.assert_allclose(streamed.covariance, np.cov(x, rowvar=False, dtype=np.float64), rtol=1e-9, atol=1e-9)


def test_statistics_do_not_depend_on_the_order_of_the_images() -> None:
    x = features(500, 10, 8)
    shuffled = x[np.random.default_rng(0).permutation(len(x))]
    np.testing.assert_allclose(statistics(shuffled).covariance, statistics(x).covariance, rtol=1e-10)


def test_a_far_away_mean_does_not_cost_the_covariance_its_digits() -> None:
    x = np.random.default_rng(9).normal(size=(1000, 4))
    far = statistics_of(np.split(x + 1e6, 10))
    np.testing.assert_allclose(far.covariance, np.cov(x, rowvar=False), atol=1e-8)


def test_a_float32_mean_is_numpys_mean_of_the_float32_rows() -> None:
    x = features(700, 6, 10, shift=3.0)
    assert statistics(x, mean_dtype=np.float32).mean.dtype == np.float32
    np.testing.assert_array_equal(statistics(x, mean_dtype=np.float32).mean, np.mean(x, axis=0))


def test_one_image_has_no_covariance() -> None:
    accumulator = StatisticsAccumulator()
    accumulator.add(np.ones((1, 3)))
    with pytest.raises(ValueError, match="at least 2 images"):
        accumulator.statistics()


def test_features_of_another_width_are_refused() -> None:
    accumulator = StatisticsAccumulator()
    accumulator.add(np.ones((2, 3)))
    with pytest.raises(ValueError, match="width 4"):
        accumulator.add(np.ones((2, 4)))
    with pytest.raises(ValueError, match="width 3 and 4"):
        frechet_distance(statistics(features(9, 3, 0)), statistics(features(9, 4, 0)))


def test_a_nan_in_the_features_is_refused() -> None:
    x = features(10, 3, 0)
    x[4, 1] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        statistics(x)


@pytest.mark.parametrize(
    ("counts", "decay"),
    [((300, 250), 0.0), ((300, 250), 1.5), ((300, 250), 6.0), ((30, 250), 0.0), ((30, 20), 0.0)],
    ids=["full rank", "falling spectrum", "steep spectrum", "one singular", "both singular"],
)
def test_every_route_to_the_root_gives_the_trace_of_the_published_one(counts: tuple[int, int], decay: float) -> None:
    """Eigenvalues, singular values of Cholesky factors, or those of factors of rank r: by what the spectra allow."""
    scale = np.arange(1.0, 41.0) ** -decay
    a, b = (np.cov(features(count, 40, seed) * scale, rowvar=False) for seed, count in enumerate(counts))
    nudge = 1e-14 * np.eye(40) * np.trace(a)
    published = np.trace(np.real(scipy.linalg.sqrtm((a + nudge) @ (b + nudge))))
    exact = np.sqrt(np.clip(np.linalg.eigvals(a @ b).real, 0.0, None)).sum()
    assert root_trace(a, b) == pytest.approx(published, rel=1e-4)
    assert root_trace(a, b) == pytest.approx(exact, rel=1e-6)
    assert root_trace(a, b) == pytest.approx(root_trace(b, a), rel=1e-9)
