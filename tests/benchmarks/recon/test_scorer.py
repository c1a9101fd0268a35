"""The record of the shipped case, with a network that costs nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from benchmarks.recon import scorer
from benchmarks.recon.pairs import PairSet
from harness.contract.files import write_json
from harness.contract.record import ScoreRecord
from harness.scoring.scorer import run_scorer

FOLDER = Path(__file__).parents[3] / "benchmarks" / "recon"
ASSETS = FOLDER.parent / "coco" / "check" / "assets"


class Means:
    """Features of two values."""

    def __init__(self, weights: Path) -> None: ...

    def __call__(self, images: np.ndarray) -> np.ndarray:
        features = np.zeros((len(images), 2048), np.float32)
        features[:, 0], features[:, 1] = images.mean(axis=(1, 2, 3)), images.std(axis=(1, 2, 3))
        return features


@pytest.mark.parametrize(
    ("made", "resize", "ema"),
    [(None, "not stated", "not stated"), ({"resize": "bilinear", "ema": False}, "bilinear", False)],
)
def test_the_record_says_how_the_pairs_were_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: dict | None, resize: str, ema: object
) -> None:
    monkeypatch.setattr("harness.scoring.networks.inception.FIDFeatures", Means)
    shutil.copytree(FOLDER / "check" / "samples", tmp_path / "pairs")
    if made:
        write_json(tmp_path / "pairs" / "pairs.json", made)
    arguments = ["--samples", tmp_path / "pairs", "--assets", ASSETS, "--out", tmp_path / "out"]
    stages = {"pairs": scorer.measure_pairs}
    assert run_scorer(scorer.score, list(map(str, arguments)), stages=stages, reads=PairSet.open) == 0
    record = ScoreRecord.read(tmp_path / "out")
    assert record.options["resize"] == resize
    assert record.protocol == {"image_size": 32, "ema": ema}
    assert record.benchmark_version == 2
