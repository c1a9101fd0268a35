"""Checkpoints as they are published are read without running code from them, and fit or are refused."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from harness.contract.errors import EnvironmentFailure, MissingAsset
from tests.lazy import LazyModule

torch: Any = LazyModule("torch")
nn: Any = LazyModule("torch.nn")
detector: Any = LazyModule("benchmarks.geneval.detector")
weights: Any = LazyModule("benchmarks.geneval.weights")

OLD_TO_NEW = {
    "panoptic_head.pixel_decoder.encoder.layers.0.attentions.0.sampling_offsets.weight": (
        "panoptic_head.pixel_decoder.encoder.layers.0.self_attn.sampling_offsets.weight"
    ),
    "panoptic_head.pixel_decoder.encoder.layers.5.ffns.0.layers.0.0.bias": (
        "panoptic_head.pixel_decoder.encoder.layers.5.ffn.layers.0.0.bias"
    ),
    "panoptic_head.transformer_decoder.layers.8.attentions.0.attn.in_proj_weight": (
        "panoptic_head.transformer_decoder.layers.8.cross_attn.attn.in_proj_weight"
    ),
    "panoptic_head.transformer_decoder.layers.8.attentions.1.attn.in_proj_weight": (
        "panoptic_head.transformer_decoder.layers.8.self_attn.attn.in_proj_weight"
    ),
    "panoptic_head.transformer_decoder.layers.0.norms.2.weight": (
        "panoptic_head.transformer_decoder.layers.0.norms.2.weight"
    ),
    "backbone.stages.0.blocks.0.ffn.layers.0.0.weight": "backbone.stages.0.blocks.0.ffn.layers.0.0.weight",
}


def save_as_a_training_framework_does(path: Path, state_dict: dict[str, Any]) -> None:
    """With objects of the framework's own classes beside the weights, as mmengine leaves them in its checkpoints."""
    module = types.ModuleType("mmengine.logging.history_buffer")

    class HistoryBuffer:
        def __init__(self) -> None:
            self.values = [1.0, 2.0]

    HistoryBuffer.__module__, HistoryBuffer.__qualname__ = module.__name__, "HistoryBuffer"
    module.HistoryBuffer = HistoryBuffer  # type: ignore[attr-defined]
    names = ["mmengine", "mmengine.logging", module.__name__]
    sys.modules |= {name: types.ModuleType(name) for name in names[:2]} | {module.__name__: module}
    try:
        torch.save({"meta": {"epoch": 50}, "message_hub": {"loss": HistoryBuffer()}, "state_dict": state_dict}, path)
    finally:
        for name in names:
            del sys.modules[name]


def test_the_weights_are_read_beside_a_frameworks_objects_whose_classes_are_not_here(tmp_path: Path) -> None:
    save_as_a_training_framework_does(tmp_path / "w.pth", {"backbone.weight": torch.arange(3.0)})
    assert weights.read_state_dict(tmp_path / "w.pth", "detector")["backbone.weight"].tolist() == [0, 1, 2]


def test_names_of_the_older_framework_become_those_of_the_newer(tmp_path: Path) -> None:
    save_as_a_training_framework_does(tmp_path / "w.pth", {key: torch.zeros(1) for key in OLD_TO_NEW})
    assert sorted(weights.read_state_dict(tmp_path / "w.pth", "detector")) == sorted(OLD_TO_NEW.values())


class _Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('code ran')",)


def test_a_file_that_asks_for_code_to_be_run_runs_none(tmp_path: Path) -> None:
    torch.save({"state_dict": {"w": torch.zeros(1)}, "evil": _Evil()}, tmp_path / "w.pth")
    assert list(weights.read_state_dict(tmp_path / "w.pth", "detector")) == ["w"]


def test_clips_archive_is_read_and_its_constants_are_no_weights(tmp_path: Path) -> None:
    import torch  # by its own name, which TorchScript looks up
    from torch import nn

    class Tiny(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.positional_embedding = nn.Parameter(torch.ones(2).half())
            self.register_buffer("input_resolution", torch.tensor(224))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.positional_embedding

    torch.jit.script(Tiny()).save(str(tmp_path / "ViT.pt"))
    state_dict = weights.read_state_dict(tmp_path / "ViT.pt", "clip")
    assert list(state_dict) == ["positional_embedding"] and state_dict["positional_embedding"].dtype == torch.float32


def test_weights_of_another_network_are_refused_with_the_keys(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(2, 2), "surplus": torch.zeros(1)}, tmp_path / "w.pth")
    with pytest.raises(MissingAsset, match=r"bias.*surplus"):
        weights.fill(nn.Linear(2, 2), tmp_path / "w.pth", "detector")
    (tmp_path / "w.pth").write_bytes(b"not found")
    with pytest.raises(MissingAsset, match="harness assets pull detector"):
        weights.fill(nn.Linear(2, 2), tmp_path / "w.pth", "detector")


def test_noise_is_the_same_everywhere_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text(json.dumps({"random_weights": 3}))
    first, second = nn.Linear(4, 2), nn.Linear(4, 2)
    assert "numbers mean nothing" in weights.fill(first, tmp_path / "r.json", "detector")
    weights.fill_with_noise(second, 3)
    assert torch.equal(first.weight, second.weight)
    weights.fill_with_noise(second, 4)
    assert not torch.equal(first.weight, second.weight)


def test_the_compiled_backend_is_refused_where_it_is_not_installed() -> None:
    assert detector.backend_in_force("auto", "cpu") == detector.backend_in_force("pytorch", "cuda:0") == "pytorch"
    assert detector.backend_in_force("auto", "cuda:0") == "pytorch"  # mmcv is not installed here
    with pytest.raises(EnvironmentFailure, match="backend=pytorch"):
        detector.backend_in_force("compiled", "cuda:0")
