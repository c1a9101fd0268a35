"""The scorer in its locked TensorFlow environment, on the case that is shipped as the gold check."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks.adm.evaluation import Features, evaluate, evaluator_statistics
from benchmarks.adm.interface import Options
from harness.catalog.benchmarks import read_benchmark
from harness.contract.record import ScoreRecord, read_items
from harness.planning.check import compare_with_expected

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "benchmarks" / "adm"
CHECK = FOLDER / "check"
REFERENCE = CHECK / "assets" / "adm-imagenet256-reference" / "VIRTUAL_imagenet256_labeled.npz"

Score = Callable[..., tuple[int, str, Path]]


def features_of(output: Path) -> Features:
    """The features that a score in a run folder was made from."""
    steps = {path.name.split("-", 1)[1]: path / "output" for path in output.parents[1].iterdir()}
    return Features.read(steps["features-adm-reference"], steps["features-adm-samples"])


@pytest.fixture(scope="module")
def score(tmp_path_factory: pytest.TempPathFactory) -> Score:
    """Runs `harness score adm` on the shipped samples: (exit status, what it printed, the scorer's output folder)."""

    def run(
        *arguments: str, graph: Path = CHECK / "assets" / "adm-inception-graph", reference: Path = REFERENCE
    ) -> tuple[int, str, Path]:
        runs = tmp_path_factory.mktemp("runs")
        assets = {"adm-inception-graph": graph, "adm-imagenet256-reference": reference}
        words = ["score", "adm", "--samples", CHECK / "samples", "--runtime", "venv", "--runs", runs, "--name", "case"]
        for name, path in assets.items():
            words += ["--asset", f"{name}={path}"]
        outcome = subprocess.run(
            [sys.executable, "-m", "harness", *map(str, words), *arguments], cwd=ROOT, capture_output=True, text=True
        )
        (step,) = (runs / "case" / "steps").glob("*score-adm")
        return outcome.returncode, outcome.stdout + outcome.stderr, step / "output"

    return run


@pytest.fixture(scope="module")
def scored(score: Score) -> Path:
    status, printed, output = score()
    assert status == 0, printed
    return output


def test_the_known_answer_is_met(scored: Path) -> None:
    comparisons = compare_with_expected(read_benchmark(FOLDER / "benchmark.yaml"), ScoreRecord.read(scored))
    assert len(comparisons) == 5
    assert all(row.passed for row in comparisons), comparisons


def test_the_numbers_can_be_computed_again_from_the_kept_features_without_tensorflow(scored: Path) -> None:
    record = ScoreRecord.read(scored)
    again = evaluate(features_of(scored), Options(**record.options))
    for name in ("gfid", "sfid", "inception_score", "precision", "recall"):
        assert getattr(again, name) == pytest.approx(record.metric(name).value, rel=1e-6)


def test_every_image_has_its_line(scored: Path) -> None:
    items = list(read_items(scored))
    index = [json.loads(line)["id"] for line in (CHECK / "samples" / "index.jsonl").read_text().splitlines()]
    assert [item["id"] for item in items] == index
    assert (
        np.mean([item["in_reference_manifold"] for item in items]) == ScoreRecord.read(scored).metric("precision").value
    )


def test_the_record_says_what_went_in(scored: Path) -> None:
    record = ScoreRecord.read(scored)
    assert record.environment["tensorflow-cpu"] == "2.15.0"
    assert {"samples", "asset:adm-inception-graph", "asset:adm-imagenet256-reference"} <= set(record.digests)
    assert record.options == Options().as_mapping()
    assert any("130 images" in note for note in record.notes)


def test_the_batch_size_changes_nothing_that_matters(score: Score, scored: Path) -> None:
    status, printed, output = score("--set", "batch_size=17")
    assert status == 0, printed
    before, after = features_of(scored), features_of(output)
    np.testing.assert_allclose(after.sample_pool, before.sample_pool, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(after.sample_spatial, before.sample_spatial, rtol=1e-4, atol=1e-5)


def test_stored_statistics_stand_for_the_reference_and_its_images_for_precision(
    score: Score, scored: Path, tmp_path: Path
) -> None:
    """The statistics stored here are those of the samples: both distances vanish, and recall does not move."""
    kept = features_of(scored)
    pool, spatial = evaluator_statistics(kept.sample_pool), evaluator_statistics(kept.sample_spatial)
    with np.load(REFERENCE) as archive:
        np.savez(
            tmp_path / "reference.npz",
            arr_0=archive["arr_0"],
            mu=pool.mean,
            sigma=pool.covariance,
            mu_s=spatial.mean,
            sigma_s=spatial.covariance,
        )
    status, printed, output = score(reference=tmp_path / "reference.npz")
    assert status == 0, printed
    record, before = ScoreRecord.read(output), ScoreRecord.read(scored)
    assert record.metric("gfid").value == pytest.approx(0.0, abs=1e-6)
    assert record.metric("sfid").value == pytest.approx(0.0, abs=1e-6)
    assert record.metric("recall").value == before.metric("recall").value


def test_a_file_that_is_not_the_graph_is_named(score: Score, tmp_path: Path) -> None:
    graph = tmp_path / "classify_image_graph_def.pb"
    graph.write_bytes(b"<html>404</html>")
    status, printed, _ = score(graph=graph)
    assert status == 4
    assert "is not the Inception graph" in printed


def test_a_reference_of_statistics_gives_gfid_alone_and_says_so(score: Score, scored: Path, tmp_path: Path) -> None:
    kept = features_of(scored).reference_pool_statistics
    np.savez(tmp_path / "adm_in256_stats.npz", mu=kept.mean, sigma=kept.covariance)
    status, printed, output = score(reference=tmp_path / "adm_in256_stats.npz")
    assert status == 0, printed
    record = ScoreRecord.read(output)
    assert [metric.name for metric in record.metrics] == ["gfid"]
    assert record.metric("gfid").value == pytest.approx(ScoreRecord.read(scored).metric("gfid").value, rel=1e-9)
    assert any("gFID is all that is computed" in note for note in record.notes)
    assert "gFID is all that is computed" in " ".join(printed.split())


@pytest.mark.parametrize("name", ["mu", "mu_s"])
def test_statistics_of_another_width_are_refused_before_the_first_feature(
    score: Score, scored: Path, tmp_path: Path, name: str
) -> None:
    kept = features_of(scored)
    pool, spatial = kept.reference_pool_statistics, kept.reference_spatial_statistics
    arrays = {"mu": pool.mean, "sigma": pool.covariance, "mu_s": spatial.mean, "sigma_s": spatial.covariance}
    arrays |= {name: np.zeros(64), name.replace("mu", "sigma"): np.eye(64)}
    np.savez(tmp_path / "reference.npz", **arrays)
    status, printed, output = score(reference=tmp_path / "reference.npz")
    assert status == 4
    assert f"{name} has 64 values where the features of adm-inception-graph have" in printed
    assert not list(output.parents[1].glob("*-features-adm-samples/log.txt"))


def test_images_of_another_size_and_repeated_ones_are_noted(score: Score, scored: Path, tmp_path: Path) -> None:
    record = ScoreRecord.read(scored)
    assert record.images == {"samples": "130 of 20 x 20 px", "reference": "150 of 16 x 16 px"}
    assert any("20 x 20 px and the reference's images 16 x 16 px" in note for note in record.notes)
    with np.load(REFERENCE) as archive:
        np.savez(tmp_path / "reference.npz", arr_0=np.concatenate([archive["arr_0"], archive["arr_0"][:3]]))
    status, printed, output = score(reference=tmp_path / "reference.npz")
    assert status == 0, printed
    assert any(note.startswith("3 of 153 images of the reference repeat") for note in ScoreRecord.read(output).notes)


def test_a_reference_without_images_and_statistics_is_named(score: Score, tmp_path: Path) -> None:
    np.savez(tmp_path / "reference.npz", labels=np.zeros(3))
    status, printed, _ = score(reference=tmp_path / "reference.npz")
    assert status == 4
    assert "has no array 'arr_0'" in printed
