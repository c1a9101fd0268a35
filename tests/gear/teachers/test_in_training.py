"""The published architectures in training: one GEAR update at 256 px with two of them, a projector each."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from PIL import Image

from gear.cli import main
from tests.gear import tiny

LEVELS = [1, 1, 1, 1, 1]
VALUES = {
    **tiny.VALUES,
    "data": {"kind": "image-folder", "image_size": 256, "num_classes": 1, "num_workers": 0},
    "tokenizer": {**tiny.VALUES["tokenizer"], "encoder_ch_mult": LEVELS, "decoder_ch_mult": LEVELS},
    "teacher": {"name": "dinov2-vit-s,siglip2-vit-b", "weights": "random,random", "spatial_norm": "zscore"},
    "stages": {phase: {"steps": 1, "batch_size": 2} for phase in ("tokenizer", "e2e")},
}


@pytest.mark.slow
def test_two_teachers_train_with_a_projector_each(tmp_path: Path) -> None:
    (tmp_path / "images" / "a").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for index in range(2):
        pixels = rng.integers(0, 256, (256, 256, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / "a" / f"{index}.png")
    (tmp_path / "two.yaml").write_text(yaml.safe_dump(VALUES))
    common = ["--preset", tmp_path / "two.yaml", "--data-dir", tmp_path / "images", "--device", "cpu"]
    for phase, more in (("tokenizer", []), ("e2e", ["--init", tmp_path / "tokenizer"])):
        words = ["train", phase, *common, "--out", tmp_path / phase, *more]
        done = CliRunner().invoke(main, [str(word) for word in words])
        assert done.exit_code == 0, done.stderr
    figures = json.loads((tmp_path / "e2e" / "log.jsonl").read_text().splitlines()[-1])
    assert -1.0 <= figures["proj_loss_ar"] <= 1.0
    info = CliRunner().invoke(main, ["info", str(tmp_path / "e2e"), "--json"])
    assert json.loads(info.stdout)["parts"]["projectors"]["tensors"] == 12, "two projectors of three layers"
