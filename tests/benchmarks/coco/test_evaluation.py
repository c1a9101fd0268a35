from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from benchmarks.coco.evaluation import fid
from benchmarks.coco.interface import Options
from benchmarks.coco.scorer import CLIP, requests_of
from harness.contract.adopt import sample_set_from_npz
from harness.contract.errors import BadSamples, UserError
from harness.contract.samples import SampleSet
from harness.scoring.scorer import Assets

FOLDER = Path(__file__).parents[3] / "benchmarks" / "coco"
DECLARED = yaml.safe_load((FOLDER / "benchmark.yaml").read_text())


def test_the_scorers_assets_are_declared() -> None:
    assert set(CLIP) <= set(DECLARED["assets"])


def test_equal_sets_are_at_distance_zero() -> None:
    features = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32)
    assert fid(features, features) == pytest.approx(0.0, abs=1e-9)


def test_samples_of_the_shipped_case_answer_the_selection() -> None:
    samples = SampleSet.open(FOLDER / "check" / "samples")
    assert len(requests_of(samples, Assets(FOLDER / "check" / "assets"), Options())) == 12
    with pytest.raises(BadSamples, match="not the first 12 of the selection"):
        requests_of(samples, Assets(FOLDER / "check" / "assets"), Options(selection_seed=1))


def test_images_without_captions_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "drawn.npz", arr_0=np.zeros((3, 8, 8, 3), np.uint8))
    samples = sample_set_from_npz(tmp_path / "drawn.npz", tmp_path / "samples")
    with pytest.raises(BadSamples, match="the captions of the images are unknown"):
        requests_of(samples, Assets(FOLDER / "check" / "assets"), Options())


def test_a_wrong_option_is_refused_by_name() -> None:
    with pytest.raises(UserError, match="no option 'num_sample'"):
        Options.read({"num_sample": 3}, "coco")
