"""The demo's scorer from end to end, on its gold check and on samples that are worse."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.demo.interface import METRICS
from benchmarks.demo.scorer import feature_metrics, score
from harness.catalog.benchmarks import read_benchmark
from harness.contract import ScoreRecord, read_items, sample_set_from_npz
from harness.planning.check import compare_with_expected
from harness.scoring.scorer import run_scorer

FOLDER = Path(__file__).parents[3] / "benchmarks" / "demo"
CHECK = FOLDER / "check"
BENCHMARK = read_benchmark(FOLDER / "benchmark.yaml")


def run(samples: Path, out: Path, assets: Path = CHECK / "assets") -> int:
    return run_scorer(score, ["--samples", str(samples), "--assets", str(assets), "--out", str(out)])


def adopt(folder: Path, images_u8: np.ndarray, labels: np.ndarray | None = None) -> Path:
    if labels is None:
        np.savez(folder / "given.npz", arr_0=images_u8)
    else:
        np.savez(folder / "given.npz", arr_0=images_u8, labels=labels)
    return sample_set_from_npz(folder / "given.npz", folder / "samples").folder


def shipped() -> tuple[np.ndarray, np.ndarray]:
    with np.load(CHECK / "samples" / "samples.npz") as archive:
        return archive["arr_0"], archive["labels"]


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("scored")
    assert run(CHECK / "samples", out) == 0
    return out


def test_the_known_answer_is_met(scored: Path) -> None:
    comparisons = compare_with_expected(BENCHMARK, ScoreRecord.read(scored))
    assert {row.metric for row in comparisons} == {spec.name for spec in METRICS}
    assert all(row.passed for row in comparisons), comparisons


def test_the_numbers_can_be_computed_again_from_what_is_kept(scored: Path) -> None:
    record = ScoreRecord.read(scored)
    reference, sample, real = (np.load(scored / "features" / f"{name}.npy") for name in ("reference", "sample", "real"))
    for metric in feature_metrics(reference, sample, real):
        assert metric.value == pytest.approx(record.metric(metric.name).value)
    items = list(read_items(scored))
    share = np.mean([item["label"] == item["predicted"] for item in items])
    assert share == record.metric("class_accuracy").value


def test_noisy_and_mislabelled_samples_score_worse(scored: Path, tmp_path: Path) -> None:
    images_u8, labels = shipped()
    noise = np.random.default_rng(0).normal(0, 40, images_u8.shape)
    noisy = np.clip(images_u8 + noise, 0, 255).astype(np.uint8)
    assert run(adopt(tmp_path, noisy, (labels + 1) % 10), tmp_path / "out") == 0
    clean, worse = ScoreRecord.read(scored), ScoreRecord.read(tmp_path / "out")
    for metric in BENCHMARK.metrics:
        before, after = clean.metric(metric.name).value, worse.metric(metric.name).value
        assert before is not None
        assert after is not None
        if metric.name.endswith("_real"):
            assert after == pytest.approx(before, rel=1e-3)
        else:
            assert after < before if metric.higher_is_better else after > 2 * before, metric.name


def test_no_number_can_be_taken_for_fid(scored: Path) -> None:
    assert not any("fid" in f"{metric.name} {metric.label}".lower() for metric in BENCHMARK.metrics)
    assert any("not FID" in note for note in ScoreRecord.read(scored).notes)


def test_declared_metrics_are_those_of_the_record(scored: Path) -> None:
    declared = {metric.name: (metric.label, metric.higher_is_better) for metric in BENCHMARK.metrics}
    written = {m.name: (m.label, m.higher_is_better) for m in ScoreRecord.read(scored).metrics}
    assert declared == written


def test_without_the_digits_the_command_that_makes_them_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(CHECK / "samples", tmp_path / "out", assets=tmp_path) == 4
    assert "gear data digits --out DIR" in capsys.readouterr().err


def test_samples_without_labels_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images_u8, _ = shipped()
    assert run(adopt(tmp_path, images_u8), tmp_path / "out") == 3
    assert "have no labels" in capsys.readouterr().err


def test_samples_of_another_size_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images_u8, labels = shipped()
    assert run(adopt(tmp_path, images_u8[:, :16, :16], labels), tmp_path / "out") == 3
    assert "are 16 px, not 32 px" in capsys.readouterr().err


def test_too_few_samples_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images_u8, labels = shipped()
    assert run(adopt(tmp_path, images_u8[:5], labels[:5]), tmp_path / "out") == 3
    assert "holds 5 images" in capsys.readouterr().err
