"""Scoring: the metrics against a plain transcription of the published procedure, on the same features.

Features are Gaussian with a decaying spectrum, like pooled Inception features; both forms get the same arrays, and
their results are printed side by side.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import click
import numpy as np
import numpy.typing as npt
import scipy.linalg

from benches.measure import peak_growth_mib, print_comparison, side_by_side
from harness.metrics.distances import half_precision_squared_distances
from harness.metrics.frechet import frechet_distance, frechet_distances, statistics
from harness.metrics.prdc import adm_precision_recall, adm_radii, exact_precision_recall

Array = npt.NDArray[Any]
TABLES = ("distance", "exact", "half", "second")
NEIGHBOUR = 3
SPATIAL_WIDTH = 2_023


# --- the published procedure, transcribed ----------------------------------------------------------------------------


def published_distances(*pairs: tuple[Array, Array]) -> tuple[float, ...]:
    return tuple(published_distance(*pair) for pair in pairs)


def published_distance(reference: Array, sample: Array) -> float:
    """Means in the features' dtype, `numpy.cov`, SciPy's root of the product, nudged where that is not finite."""
    means, covariances = zip(*((x.mean(axis=0), np.cov(x, rowvar=False)) for x in (reference, sample)), strict=True)
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1])
    if not np.isfinite(root).all():
        nudge = 1e-6 * np.eye(len(root))
        root = scipy.linalg.sqrtm((covariances[0] + nudge) @ (covariances[1] + nudge))
    difference = means[0] - means[1]
    traces = np.trace(covariances[0]) + np.trace(covariances[1]) - 2.0 * np.trace(np.real(root))
    return float(difference @ difference + traces)


def published_pairwise(rows: Array, columns: Array) -> Array:
    """The expression of the evaluator in the dtype of its arguments, then float32."""
    row_norms = np.sum(np.square(rows), axis=1).reshape(-1, 1)
    column_norms = np.sum(np.square(columns), axis=1).reshape(1, -1)
    return np.maximum(row_norms - 2 * np.matmul(rows, columns.T) + column_norms, 0.0).astype(np.float32)


def published_precision_recall(reference: Array, sample: Array, dtype: Any = np.float32) -> tuple[float, float]:
    """One block per pair of sets, as at 10,000 images: radii by partition, then both memberships."""
    reference, sample = reference.astype(dtype), sample.astype(dtype)
    radii = []
    for features in (reference, sample):
        distances = published_pairwise(features, features)
        radii.append(np.partition(distances, NEIGHBOUR, axis=1)[:, NEIGHBOUR])
    distances = published_pairwise(reference, sample)
    precision = (distances[..., None] <= radii[0][:, None, None]).any(axis=0).mean()
    recall = (distances[..., None] <= radii[1][None, :, None]).any(axis=1).mean()
    return float(precision), float(recall)


# --- ours ------------------------------------------------------------------------------------------------------------


def our_distances(*pairs: tuple[Array, Array]) -> tuple[float, ...]:
    """All in one call, as the adm benchmark does."""
    return tuple(distance.value for distance in frechet_distances(pairs, mean_dtype=np.float32))


def our_exact(reference: Array, sample: Array) -> tuple[float, float]:
    inside = exact_precision_recall(reference, sample, k=NEIGHBOUR)
    return inside.precision, inside.recall


def our_half(reference: Array, sample: Array) -> tuple[float, float]:
    inside = adm_precision_recall(reference, sample, k=NEIGHBOUR)
    return inside.precision, inside.recall


# --- the comparison --------------------------------------------------------------------------------------------------


@cache
def made_features(count: int, width: int) -> tuple[Array, Array]:
    """(count, width) float32 twice: ReLU-like positive means, variances that fall as 1 / index^1.2."""
    generator = np.random.default_rng(0)
    scale = (np.arange(1, width + 1, dtype=np.float32) ** -0.6)[generator.permutation(width)]
    mean = generator.uniform(0.2, 0.6, width).astype(np.float32)
    reference, sample = (generator.standard_normal((count, width), dtype=np.float32) for _ in range(2))
    for features, spread, shift in ((reference, 1.0, 1.0), (sample, 1.05, 1.01)):
        features *= np.float32(spread) * scale  # in place: the peak here must not hide that of the forms
        features += np.float32(shift) * mean
    return reference, sample


def prepared(form: Callable[..., Any], count: int, width: int) -> Callable[[], Any]:
    """For `peak_growth_mib`: the features exist before the measurement begins."""
    return partial(form, *made_features(count, width))


def prepared_distances(form: Callable[..., Any], count: int, width: int) -> Callable[[], Any]:
    """FID and sFID; as in `prepared`, both pairs of sets exist before any measurement begins."""
    sets = [made_features(count, features) for features in (width, min(width, SPATIAL_WIDTH))]
    return partial(form, *sets)


def compare(title: str, forms: dict[str, Callable[[], Any]], repeats: int, memory: dict[str, float] | None) -> None:
    """Time the forms alternately; print the table and each form's result.

    Beside each result are its processor seconds over all threads, which a busy machine affects less than the clock.
    """
    results: dict[str, Any] = {}
    processor_s: dict[str, float] = {}

    def keeping(name: str, run: Callable[[], Any]) -> Callable[[], None]:
        def keep() -> None:
            started = time.process_time()
            results[name] = run()
            processor_s[name] = time.process_time() - started

        return keep

    timings = side_by_side({name: keeping(name, run) for name, run in forms.items()}, repeats=repeats, warmup=0)
    print_comparison(title, timings, baseline=next(iter(forms)), memory_mib=memory)
    for name, values in results.items():
        values_shown = ", ".join(f"{value:.6f}" for value in values)
        click.echo(f"  {name}: {values_shown} ({processor_s[name]:.1f} processor seconds)")
    click.echo()


@click.command()
@click.option("--only", type=click.Choice(TABLES), multiple=True, help="Only these tables; may be repeated.")
@click.option("--count", default=10_000, show_default=True, help="Images in each set.")
@click.option("--width", default=2_048, show_default=True, help="Pooled features; the spatial ones are 2,023.")
@click.option("--half-count", default=200, show_default=True, help="Images for NumPy's float16 product, which is slow.")
@click.option("--repeats", default=1, show_default=True)
@click.option("--memory/--no-memory", default=True, show_default=True, help="Peak memory, each form in a new process.")
def bench(only: tuple[str, ...], count: int, width: int, half_count: int, repeats: int, memory: bool) -> None:
    """Metrics: speed and peak memory, ours and as published.

    FID + sFID, precision + recall without and with float16, and a second score against a known reference.
    """
    wanted = only or TABLES
    if "distance" in wanted:
        distances(count, width, repeats, memory)
    if "exact" in wanted:
        exact(count, width, repeats, memory)
    if "half" in wanted:
        half(half_count, width, repeats)
    if "second" in wanted:
        second_score(count, width, repeats)


def distances(count: int, width: int, repeats: int, memory: bool) -> None:
    """FID and sFID, from features to the two numbers."""
    forms = {"published": published_distances, "ours": our_distances}
    make = prepared_distances
    grown = {name: peak_growth_mib(partial(make, form, count, width)) for name, form in forms.items() if memory}
    calls = {name: make(form, count, width) for name, form in forms.items()}
    compare(f"FID + sFID, {count:,} x {width:,}", calls, repeats, grown or None)


def exact(count: int, width: int, repeats: int, memory: bool) -> None:
    """Precision and recall without the rounding to float16: the published ones in float32, ours in float64."""
    forms = {"published": published_precision_recall, "ours": our_exact}
    grown = {name: peak_growth_mib(partial(prepared, form, count, width)) for name, form in forms.items() if memory}
    calls = {name: prepared(form, count, width) for name, form in forms.items()}
    compare(f"precision + recall without float16, {count:,} x {width:,}", calls, repeats, grown or None)


def half(count: int, width: int, repeats: int) -> None:
    """Precision and recall as published."""
    calls = {
        "published": partial(published_precision_recall, *made_features(count, width), np.float16),
        "ours": prepared(our_half, count, width),
    }
    title = f"precision + recall in float16, {count:,} x {width:,} (time grows with the square of the count)"
    compare(title, calls, repeats, None)


def second_score(count: int, width: int, repeats: int) -> None:
    """The arithmetic of one score, and of a second one, for which the reference's statistics and radii are known."""
    reference, sample = made_features(count, width)
    known = statistics(reference, mean_dtype=np.float32), adm_radii(reference, k=NEIGHBOUR)

    def score(of_reference: Any, radii: Array | None) -> tuple[float, float, float]:
        fitted = of_reference or statistics(reference, mean_dtype=np.float32)
        distance = frechet_distance(fitted, statistics(sample, mean_dtype=np.float32)).value
        inside = adm_precision_recall(
            reference, sample, k=NEIGHBOUR, distance=half_precision_squared_distances, reference_radii=radii
        )
        return distance, inside.precision, inside.recall

    forms = {"first": lambda: score(None, None), "second": lambda: score(*known)}
    compare(f"arithmetic of one score, {count:,} x {width:,}, features given", forms, repeats, None)
