"""float16 with scaled losses, and compiled modules: what a GPU runs, as far as a CPU can show it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from gear.config import RunConfig
from gear.training.checkpoint import load_tensors
from gear.training.loop import fit
from gear.training.optim import LossScale
from gear.training.processes.prepare import autocast_dtype, compile_parts
from gear.training.stages.stage import Stage
from tests.gear import tiny
from tests.gear.same_bits import assert_same_bits

STAGES = ("tokenizer", "e2e", "ar")


@pytest.fixture
def fp16_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Stage, "half", property(lambda stage: torch.float16))
    monkeypatch.setattr(LossScale, "INTERVAL", 2)


def losses(stage: Stage, updates: int = 3) -> list[float]:
    torch.manual_seed(1)  # dropout
    figures = []
    for _ in range(updates):
        logs = stage.micro_step(tiny.batch(), last=True, diagnose=True)
        stage.finish_update()
        assert all(math.isfinite(float(value)) for value in logs.values())
        figures.append(float(logs[stage.headline]))
    return figures


def test_a_gpu_computes_in_the_type_that_the_configuration_names() -> None:
    def dtype(precision: str, device: str = "cuda") -> torch.dtype | None:
        return autocast_dtype(RunConfig.from_dict({**tiny.VALUES, "precision": precision}), torch.device(device))

    assert [dtype(name) for name in ("fp32", "bf16", "fp16")] == [None, torch.bfloat16, torch.float16]
    assert [dtype(name, "cpu") for name in ("fp32", "bf16", "fp16")] == [None, None, None]


@pytest.mark.parametrize("phase", STAGES)
@pytest.mark.usefixtures("fp16_on_a_cpu")
def test_a_stage_learns_in_float16_as_in_float32(phase: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = tiny.stage(phase)
    half = losses(stage)
    assert all(made.loss_scale is not None for made in stage.optimizations.values())
    monkeypatch.setattr(Stage, "half", None)
    plain = tiny.stage(phase)
    assert losses(plain) == pytest.approx(half, rel=2e-2)
    assert losses(plain, 1) != half[:1], "they are not the same computation"


@pytest.mark.parametrize("phase", STAGES)
@pytest.mark.usefixtures("fp16_on_a_cpu")
def test_a_run_in_float16_is_the_same_bits_interrupted_or_not(phase: str, tmp_path: Path) -> None:
    def state(folder: str) -> dict[str, Any]:
        return load_tensors(tmp_path / folder / "checkpoints" / "0000006.pt")

    fit(tiny.stage(phase), tiny.Noise(), tmp_path / "whole", {})
    fit(tiny.stage(phase, tiny.config(steps=3)), tiny.Noise(), tmp_path / "parts", {})
    fit(tiny.stage(phase), tiny.Noise(), tmp_path / "parts", {})
    whole, parts = state("whole"), state("parts")
    assert_same_bits(whole, parts)
    scales = [value["loss_scale"] for name, value in whole.items() if name.startswith("opt_")]
    assert scales and all(scale["scale"] != LossScale.INITIAL for scale in scales), "the scale was adapted"


@pytest.mark.parametrize("phase", STAGES)
def test_compiled_modules_train_as_plain_ones(phase: str) -> None:
    compiled = tiny.stage(phase)
    compile_parts(compiled.modules.values(), backend="aot_eager")
    plain = tiny.stage(phase)
    assert losses(compiled) == pytest.approx(losses(plain), rel=1e-5)
    assert compiled.modules["vq"].state_dict().keys() == plain.modules["vq"].state_dict().keys()


def test_a_cpu_does_not_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gear.training.processes.prepare.compile_parts", pytest.fail)
    tiny.stage("ar", RunConfig.from_dict({**tiny.VALUES, "engine": {"compile": True}}))
