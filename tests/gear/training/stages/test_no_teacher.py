"""Without alignment: coefficients of 0 need no teacher, in any stage."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from gear.align import alignment_loss
from gear.config import RunConfig
from gear.training.loop import fit
from gear.training.stages.build import build_stage
from gear.training.stages.stage import Stage
from gear.weights import open_model
from harness.contract.errors import MissingAsset
from tests.gear import tiny

CPU = torch.device("cpu")


def config(folder: Path, **gear: float) -> RunConfig:
    """With a teacher whose weights are nowhere, on three class folders."""
    values: dict[str, Any] = copy.deepcopy(tiny.VALUES)
    values["data"]["data_dir"] = str(folder / "images")
    values["teacher"] = {"name": "lite0", "weights": str(folder / "nowhere.pth")}
    values["gear"] |= gear
    return RunConfig.from_dict(values)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(6):
        path = tmp_path / "images" / "abc"[number % 3] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
    fit(tiny.stage("tokenizer"), tiny.Noise(), tmp_path / "tokenizer", {})
    return tmp_path


def build(folder: Path, phase: str, run_config: RunConfig) -> tuple[Stage, Any]:
    return build_stage(phase, run_config, CPU, init=open_model(folder / "tokenizer") if phase == "e2e" else None,
                       tokenizer=open_model(folder / "tokenizer") if phase == "ar" else None)  # fmt: skip


@pytest.mark.parametrize("phase", ["e2e", "ar"])
def test_a_stage_without_alignment_builds_no_teacher_and_stores_no_projectors(phase: str, folder: Path) -> None:
    off = config(folder, align_coeff=0.0, tokenizer_align_coeff=0.0)
    stage, source = build(folder, phase, off)
    path = fit(stage, source, folder / phase, {})
    written = open_model(path)
    assert written.has("ar") and not written.has("projectors")
    last = json.loads((folder / phase / "log.jsonl").read_text().splitlines()[-1])
    assert last["ar_total"] == last["ce_loss"]
    assert not any(name.startswith("proj_loss") for name in last)
    with pytest.raises(MissingAsset, match="nowhere"):
        build(folder, phase, config(folder))


def test_stage_ar_goes_on_with_or_without_alignment(folder: Path) -> None:
    off = config(folder, align_coeff=0.0, tokenizer_align_coeff=0.0)
    plain = fit(*build(folder, "ar", off), folder / "plain", {})
    aligned = fit(tiny.stage("ar"), tiny.Noise(), folder / "aligned", {})
    build_stage("ar", off, CPU, init=open_model(aligned))
    values = off.to_dict()
    values["teacher"]["weights"], values["gear"]["align_coeff"] = None, 0.5
    stage, _ = build_stage("ar", RunConfig.from_dict(values), CPU, init=open_model(plain))
    assert "projectors" in stage.modules


def test_the_tokenizers_alignment_needs_the_teacher_too(folder: Path) -> None:
    one = config(folder, align_coeff=0.0)
    assert (one.aligns("tokenizer"), one.aligns("e2e"), one.aligns("ar")) == (False, True, False)
    with pytest.raises(MissingAsset, match="nowhere"):
        build(folder, "e2e", one)


def test_nothing_to_align_costs_nothing() -> None:
    assert alignment_loss([], []) == 0.0
    with pytest.raises(ValueError, match="do not match"):
        alignment_loss([], [torch.ones(1, 2, 3)])
