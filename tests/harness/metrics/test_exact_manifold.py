"""Leaving distances out changes no answer: exact precision and recall against all distances in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.metrics import exact_manifold
from harness.metrics.distances import squared_distances
from harness.metrics.prdc import containment, exact_precision_recall, neighbour_radii

ROUNDING = 1e-5
"""Relative: what float32 may move a squared distance by here."""


def falling(count: int, width: int, seed: int, *, power: float = 1.0, spread: float = 1.0) -> np.ndarray:
    """(count, width) float32 in correlated directions whose deviations fall; power = 0 is isotropic."""
    generator = np.random.default_rng(seed)
    rotation = np.linalg.qr(np.random.default_rng(1).standard_normal((width, width)))[0]
    deviations = spread * np.arange(1, width + 1) ** -power
    return ((generator.standard_normal((count, width)) * deviations) @ rotation).astype(np.float32)


def surely_and_possibly(reference: np.ndarray, sample: np.ndarray, k: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Memberships (N_sample,), (N_reference,) by all distances, with the radii a little too small and too large."""
    centre = reference.mean(axis=0, dtype=np.float64)
    sets = [features.astype(np.float64) - centre for features in (reference, sample)]
    radii = [neighbour_radii(features, k, distance=squared_distances) for features in sets]
    largest = max(np.square(features).sum(axis=1).max() for features in sets)
    answers = []
    for sign in (-1.0, 1.0):
        moved = [radius + sign * ROUNDING * largest for radius in radii]
        inside = containment(*sets, *moved, distance=squared_distances, closed=True)
        answers.append((inside.reference_balls > 0, inside.sample_balls > 0))
    return answers


def assert_exact(reference: np.ndarray, sample: np.ndarray, k: int = 3) -> None:
    got = exact_precision_recall(reference, sample, k=k)
    surely, possibly = surely_and_possibly(reference, sample, k)
    for answer, least, most in zip((got.sample_in_reference, got.reference_in_sample), surely, possibly, strict=True):
        assert (least <= answer).all()
        assert (answer <= most).all()


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**31),
    st.integers(5, 400),
    st.integers(5, 400),
    st.integers(1, 60),
    st.sampled_from([0.0, 0.6, 2.0]),
    st.integers(1, 4),
)
def test_answers_are_those_of_all_distances(
    seed: int, count: int, other: int, width: int, power: float, k: int
) -> None:
    assert_exact(falling(count, width, seed, power=power), falling(other, width, seed + 1, power=power, spread=1.1), k)


@pytest.mark.parametrize("power", [0.0, 0.6, 1.2])
def test_answers_are_those_of_all_distances_in_many_strips(power: float) -> None:
    assert_exact(falling(1_100, 128, 0, power=power), falling(1_300, 128, 1, power=power, spread=1.05))


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_clusters_far_from_the_centre_lose_no_pair(scale: float) -> None:
    reference, sample = falling(600, 40, 0), falling(500, 40, 1)
    reference[300:] += 20.0
    sample[250:] += 20.0
    assert_exact(reference * np.float32(scale), sample * np.float32(scale))


def test_features_that_do_not_vary_are_no_trouble() -> None:
    same = np.full((40, 24), 3.0, dtype=np.float32)
    inside = exact_precision_recall(same, same[:30])
    assert (inside.precision, inside.recall) == (1.0, 1.0)
    apart = exact_precision_recall(same, same[:30] + np.float32(1.0))
    assert (apart.precision, apart.recall) == (0.0, 0.0)


def test_repeated_points_have_small_balls() -> None:
    reference = np.repeat(falling(100, 24, 0), 5, axis=0)
    assert exact_precision_recall(reference, falling(200, 24, 1)).precision == 0.0


def test_the_number_of_threads_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    reference, sample = falling(900, 64, 0), falling(800, 64, 1, spread=1.1)
    many = exact_precision_recall(reference, sample)
    monkeypatch.setattr(exact_manifold, "MOST_THREADS", 1)
    one = exact_precision_recall(reference, sample)
    np.testing.assert_array_equal(one.sample_in_reference, many.sample_in_reference)
    np.testing.assert_array_equal(one.reference_in_sample, many.reference_in_sample)


def test_most_distances_are_left_out_where_the_spectrum_falls(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = []
    near_pairs = exact_manifold._near_pairs

    def counting(bounds: Any, row: int, column: int, points: Any, others: Any, once: bool) -> Any:
        rows, columns = (slice(start, start + size) for start, size in zip((row, column), bounds.shape, strict=True))
        measured.append((bounds <= np.maximum(points.reach[rows, None], others.reach[columns])).sum())
        return near_pairs(bounds, row, column, points, others, once)

    monkeypatch.setattr(exact_manifold, "_near_pairs", counting)
    exact_precision_recall(falling(1_500, 128, 0, power=1.2), falling(1_500, 128, 1, power=1.2))
    assert sum(measured) < 0.1 * 2 * 1_500**2  # half of each set with itself, and all between the two


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_the_bounds_are_never_above_the_distance(offset: float) -> None:
    sets = [falling(300, 200, 0, power=2.0), falling(280, 200, 1, power=2.0, spread=3.0)]
    reference, sample = (features + np.float32(offset) for features in sets)
    middle = reference.mean(axis=0)
    rows = exact_manifold._some_rows(reference, sample) - middle
    basis = exact_manifold._principal_directions(rows.T @ rows, len(rows))
    first, second = (exact_manifold._points(features, middle, basis) for features in (reference, sample))
    exact = np.square(reference[:, None].astype(np.float64) - sample[None]).sum(axis=2)
    tight = exact_manifold._tight_bounds(first, slice(None), second, slice(None))
    assert (exact_manifold._bounds(first.lifted, second.lifted) <= exact).all()
    assert (tight <= exact).all()
    assert (exact - tight <= 4 * exact_manifold.SLACK * (first.squares[:, None] + second.squares)).all()


def test_features_far_from_zero_are_measured_as_near_it() -> None:
    """What all have in common does not blur float32: distances are sums of differences."""
    reference, sample = (np.round(falling(count, 40, count) * 64) / 64 for count in (600, 500))
    moved = [features + np.float32(4_096) for features in (reference, sample)]
    here, there = exact_precision_recall(reference, sample), exact_precision_recall(*moved)
    np.testing.assert_array_equal(here.sample_in_reference, there.sample_in_reference)
    np.testing.assert_array_equal(here.reference_in_sample, there.reference_in_sample)


def test_what_cannot_be_kept_on_disk_is_compiled_all_the_same() -> None:
    """A function without a file has no place for its machine code; nor has a package in a folder that is read-only."""
    names: dict[str, Any] = {}
    exec("def twice(x):\n    return 2 * x", names)
    assert exact_manifold._compiled(names["twice"])(21) == 42


def test_too_few_images_for_the_neighbour_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 4 images, got 3"):
        exact_precision_recall(falling(50, 8, 0), falling(3, 8, 1))
