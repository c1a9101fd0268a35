"""Kernel distance: the reference evaluator's draws and value, and what it must mean."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.metrics.mmd import mmd_of, polynomial_mmd

GOLDEN = Path(__file__).parents[2] / "golden" / "gpic"

Golden = tuple[dict[str, Any], np.ndarray, np.ndarray]


@pytest.fixture
def golden() -> Golden:
    case = json.loads((GOLDEN / "basic_equal_n.json").read_text())
    with np.load(GOLDEN / "basic_equal_n_ref.npz") as archive:
        reference = archive["dino_embeddings"]
    with np.load(GOLDEN / "basic_equal_n_sample.npz") as archive:
        return case, reference, archive["features"]


def test_the_value_is_the_reference_evaluators(golden: Golden) -> None:
    case, reference, sample = golden
    generator = np.random.RandomState(case["numpy_legacy_seed_set_before_evaluate"])
    assert polynomial_mmd(reference, sample, generator=generator) == pytest.approx(case["expected"]["mmd"], abs=1e-6)


def test_the_draws_are_the_reference_evaluators(golden: Golden) -> None:
    case, reference, sample = golden
    generator = np.random.RandomState(case["numpy_legacy_seed_set_before_evaluate"] + 1)
    for expected in case["extra"]["mmd_10_subsets_of_20"]:
        got = polynomial_mmd(reference, sample, generator=generator, num_subsets=1, subset_size=20)
        assert got == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_different_distributions_are_further_apart_than_equal_ones() -> None:
    rng = np.random.default_rng(0)
    x, y, wide = rng.normal(size=(400, 8)), rng.normal(size=(400, 8)), 2 * rng.normal(size=(400, 8))
    assert abs(mmd_of(x, y)) < 0.1 * mmd_of(x, wide)


def test_one_image_is_too_few() -> None:
    with pytest.raises(ValueError, match="at least 2 images"):
        polynomial_mmd(np.ones((1, 3)), np.ones((9, 3)), generator=np.random.RandomState(0))
