from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import yaml

from benchmarks.gpic.evaluation import Reference, evaluate
from benchmarks.gpic.interface import METRICS, Options
from benchmarks.gpic.scorer import metrics
from harness.contract.errors import BadSamples, MissingAsset, UserError
from harness.metrics.frechet import statistics

DECLARED = yaml.safe_load((Path(__file__).parents[3] / "benchmarks" / "gpic" / "benchmark.yaml").read_text())


def normal(count: int, seed: int, width: int = 12) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)


def reference(*, embeddings: bool = True) -> Reference:
    drawn = normal(90, 0)
    return Reference(statistics=statistics(drawn), embeddings=drawn if embeddings else None)


def test_every_metric_is_declared_and_checked() -> None:
    computed = [metric.name for metric in metrics(evaluate(normal(80, 1), reference(), Options()), 80, Options())]
    assert [metric.name for metric in METRICS] == computed
    assert set(DECLARED["check"]["expected"]) == set(computed)


def test_a_seed_repeats_every_draw_and_another_one_does_not() -> None:
    options = Options(prdc_cap=40, mmd_subset_size=20)
    first, again = (evaluate(normal(80, 1), reference(), options) for _ in range(2))
    other = evaluate(normal(80, 1), reference(), dataclasses.replace(options, seed=1))
    assert (first.mmd, first.prdc) == (again.mmd, again.prdc)
    assert first.mmd != other.mmd


def test_without_embeddings_there_is_the_distance_alone() -> None:
    evaluation = evaluate(normal(80, 1), reference(embeddings=False), Options())
    assert evaluation.prdc is None
    assert [metric.name for metric in metrics(evaluation, 80, Options())] == ["fd", "fd_mu", "fd_sigma"]


def test_shares_have_intervals_around_them() -> None:
    for metric in metrics(evaluate(normal(80, 1), reference(), Options()), 80, Options()):
        if metric.name in ("precision", "recall", "density", "coverage"):
            assert metric.interval is not None
            assert metric.interval[0] <= metric.value <= metric.interval[1]


def test_features_of_another_network_are_refused() -> None:
    with pytest.raises(BadSamples, match="of one network"):
        evaluate(normal(80, 1, width=13), reference(), Options())


def test_a_broken_reference_is_named(tmp_path: Path) -> None:
    path = tmp_path / "test_stats.npz"
    np.savez(path, dino_mu=np.zeros(3), dino_sigma=np.eye(4))
    with pytest.raises(MissingAsset, match=r"test_stats\.npz.*harness assets pull gpic-reference"):
        Reference.read(path)


@pytest.mark.parametrize(("given", "sentence"), [({"sed": 1}, "no option 'sed'"), ({"prdc_k": 0}, "at least 1")])
def test_a_wrong_option_is_refused_by_name(given: dict, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        Options.read(given, "gpic")
