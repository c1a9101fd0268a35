"""The five numbers from features: what they must mean, their options, and the files they can be repeated from."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from benchmarks.adm.evaluation import (
    Evaluation,
    Features,
    evaluate,
    evaluator_statistics,
    write_statistics,
)
from benchmarks.adm.interface import METRICS, Options
from benchmarks.adm.scorer import metrics
from harness.contract.errors import BadSamples, UserError
from harness.metrics.prdc import adm_radii

FOLDER = Path(__file__).parents[3] / "benchmarks" / "adm"
DECLARED = yaml.safe_load((FOLDER / "benchmark.yaml").read_text())


def normal(count: int, width: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)


def features(**changes: Any) -> Features:
    reference = normal(120, 12, 0)
    arrays: dict[str, Any] = {
        "reference_spatial_statistics": evaluator_statistics(normal(120, 9, 4)),
        "sample_pool": normal(100, 12, 1),
        "sample_spatial": normal(100, 9, 2),
        "reference_pool": reference,
        "classifier": normal(12, 5, 3),
        **changes,
    }
    return Features(
        reference_pool_statistics=evaluator_statistics(reference),
        **arrays,
    )


def test_samples_that_are_the_reference_are_at_distance_zero_with_full_precision_and_recall() -> None:
    result = evaluate(features(sample_pool=normal(120, 12, 0), sample_spatial=normal(120, 9, 4)), Options())
    assert result.gfid == pytest.approx(0.0, abs=1e-9)
    assert result.sfid == pytest.approx(0.0, abs=1e-9)
    assert (result.precision, result.recall) == (1.0, 1.0)


def test_the_precision_is_the_share_of_flagged_samples() -> None:
    result = evaluate(features(), Options())
    assert result.precision == result.in_reference_manifold.mean()
    assert 0.0 < result.precision < 1.0


def test_the_inception_score_is_nan_when_a_probability_underflows() -> None:
    assert math.isnan(evaluate(features(classifier=300 * normal(12, 5, 3)), Options()).inception_score)


def test_the_options_reach_the_metrics() -> None:
    given = features()
    base = evaluate(given, Options())
    assert evaluate(given, Options(is_split_size=20)).inception_score != base.inception_score
    assert evaluate(given, Options(manifold_k=1)).precision < base.precision
    assert base.precision_exact is None and base.recall_exact is None
    assert evaluate(given, Options(exact=True)).precision_exact == pytest.approx(base.precision, abs=0.05)


def test_known_radii_of_the_reference_change_nothing() -> None:
    given = features()
    kept = dataclasses.replace(given, reference_radii=adm_radii(given.reference_pool))
    before, after = evaluate(given, Options()), evaluate(kept, Options())
    assert (after.precision, after.recall) == (before.precision, before.recall)


def test_the_features_survive_the_disk(tmp_path: Path) -> None:
    given = features()
    reference, samples = tmp_path / "reference", tmp_path / "samples"
    for folder, arrays in (
        (reference, {"pool": given.reference_pool}),
        (samples, {"pool": given.sample_pool, "spatial": given.sample_spatial, "classifier": given.classifier}),
    ):
        folder.mkdir()
        for name, array in arrays.items():
            np.save(folder / f"{name}.npy", array)
    write_statistics(reference, given.reference_pool_statistics, given.reference_spatial_statistics)
    again, before = evaluate(Features.read(reference, samples), Options()), evaluate(given, Options())
    for field in dataclasses.fields(Evaluation):
        np.testing.assert_array_equal(getattr(again, field.name), getattr(before, field.name))


@pytest.mark.parametrize(
    ("lacking", "names"),
    [
        (("reference_pool", "reference_spatial_statistics"), ["gfid"]),
        (("reference_pool",), ["gfid", "sfid"]),
        (("reference_spatial_statistics",), ["gfid", "inception_score", "precision", "recall"]),
    ],
)
def test_a_reference_gives_what_it_holds_and_the_same_numbers(
    lacking: tuple[str, ...], names: list[str], tmp_path: Path
) -> None:
    given = features(**dict.fromkeys(lacking))
    found, whole = evaluate(given, Options()), evaluate(features(), Options())
    rows = metrics(found, Options(), 100)
    assert [row.name for row in rows] == names
    assert all(row.value == getattr(whole, row.name) and row.n == 100 for row in rows)
    write_statistics(tmp_path, given.reference_pool_statistics, given.reference_spatial_statistics)
    np.save(tmp_path / "classifier.npy", given.classifier)
    np.save(tmp_path / "spatial.npy", given.sample_spatial)
    np.save(tmp_path / "pool.npy", given.sample_pool if given.reference_pool is None else given.reference_pool)
    again = Features.read(tmp_path, tmp_path)
    assert (again.reference_spatial_statistics is None) == (given.reference_spatial_statistics is None)


def test_three_images_have_no_third_neighbour() -> None:
    with pytest.raises(BadSamples, match="at least 4 images, but the sample set has 3"):
        evaluate(features(sample_pool=normal(3, 12, 1), sample_spatial=normal(3, 9, 2)), Options())


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"bach_size": 64}, r"--set adm\.bach_size=64: adm has no option 'bach_size'; it has: .*batch_size"),
        ({"batch_size": 0}, r"--set adm\.batch_size=0: batch_size must be a whole number of at least 1, not 0"),
        ({"manifold_k": True}, r"--set adm\.manifold_k=true: .*must be a whole number"),
        ({"distances": "float8"}, "choose one of float16, tensorflow"),
        ({"measure": "fid"}, "choose one of gfid, rfid"),
        ({"exact": 1}, "true or false"),
        ({"duplicates": "ignore"}, "choose one of refuse, allow"),
    ],
)
def test_a_wrong_option_is_refused_by_name(given: dict, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        Options.read(given, "adm")


def test_every_metric_is_declared_and_every_number_has_its_name() -> None:
    result = evaluate(features(), Options(exact=True))
    drawn, reconstructed = (
        [row.name for row in metrics(result, Options(measure=what), 100)] for what in ("gfid", "rfid")
    )
    computed = [field.name for field in dataclasses.fields(Evaluation)][:-1]
    assert drawn == computed and reconstructed == ["rfid", *computed[1:]]
    assert [spec.name for spec in METRICS] == [*computed, "rfid"]
    assert set(DECLARED["check"]["expected"]) == set(computed[:5]) == set(DECLARED["check"]["full"]["expected"])


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-torch.lock"])
def test_the_lock_names_no_host_and_hashes_everything(lock: str) -> None:
    lines = (FOLDER / lock).read_text().splitlines()
    assert not any("://" in line for line in lines)
    packages = [line for line in lines if line and not line.startswith((" ", "#"))]
    assert all("==" in line and line.endswith("\\") for line in packages)
