"""Every public layout, written with a real tokenizer's weights and read back into a fresh one."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from gear.tokenizers.checkpoints import with_averages
from gear.weights import load_tokenizer
from harness.contract.errors import UserError

StateDict = dict[str, torch.Tensor]


def shifted(weights: StateDict) -> StateDict:
    """Fake averaged weights: every value is one larger."""
    return {key: value + 1 for key, value in weights.items()}


def shadows(weights: StateDict) -> StateDict:
    return {"model_ema." + key.replace(".", ""): value for key, value in shifted(weights).items()}


def lightning(weights: StateDict) -> dict[str, Any]:
    bookkeeping = {"model_ema.decay": torch.tensor(0.999), "model_ema.num_updates": torch.tensor(7)}
    critic = {"loss.discriminator.main.0.weight": torch.zeros(2)}
    return {"epoch": 3, "state_dict": {**weights, **shadows(weights), **bookkeeping, **critic}}


LAYOUTS: dict[str, tuple[str, Callable[[StateDict], Any]]] = {
    "gear": ("vq", lambda w: {"vq": w, "vq_ema": shifted(w), "discriminator": {}, "steps": 3}),
    "gear, averaged only": ("vq", lambda w: {"vq_ema": shifted(w)}),
    "open-magvit2": ("lfq", lightning),
    "ibq": ("ibq", lightning),
}
LIVE_ONLY: dict[str, tuple[str, Callable[[StateDict], Any]]] = {
    "gear, live only": ("glfq", lambda w: {"vq": w, "steps": 3}),
    "llamagen": ("vq", lambda w: {"model": {**w, "quantize.codebook_used": torch.zeros(65_536)}}),
    "llamagen training": (
        "vq",
        lambda w: {"model": w, "ema": shifted(w), "args": argparse.Namespace(vq_model="VQ-16"), "steps": 9},
    ),
    "lightning without averages": ("ibq", lambda w: {"state_dict": {**w, "loss.logvar": torch.zeros(1)}}),
    "state dict": ("vq", dict),
    "compiled": ("vq", lambda w: {"model": {f"_orig_mod.{key}": value for key, value in w.items()}}),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_averaged_weights_are_taken_where_there_are_some(name, tiny_tokenizer, tmp_path):
    family, write = LAYOUTS[name]
    assert_loads(tiny_tokenizer(family), write, tmp_path, expected=shifted)


@pytest.mark.parametrize("name", LIVE_ONLY)
def test_live_weights_are_taken_where_there_are_only_those(name, tiny_tokenizer, tmp_path):
    family, write = LIVE_ONLY[name]
    assert_loads(tiny_tokenizer(family), write, tmp_path, expected=dict)


def assert_loads(tokenizer, write, folder: Path, *, expected: Callable[[StateDict], StateDict]) -> None:
    weights = {key: value.clone() for key, value in tokenizer.state_dict().items()}
    torch.save(write(weights), folder / "tokenizer.pt")
    loaded = load_tokenizer(folder / "tokenizer.pt", config=tokenizer.config).state_dict()
    for key, value in expected(weights).items():
        assert torch.equal(loaded[key], value), key


def test_safetensors_files_are_read_too(tiny_tokenizer, tmp_path):
    tokenizer = tiny_tokenizer("vq")
    safetensors.torch.save_file(tokenizer.state_dict(), tmp_path / "tokenizer.safetensors")
    loaded = load_tokenizer(tmp_path / "tokenizer.safetensors")
    assert torch.equal(loaded.quantize.embedding.weight, tokenizer.quantize.embedding.weight)


def test_a_live_key_without_shadow_keeps_its_value():
    state_dict = {
        "encoder.a.weight": torch.zeros(1),
        "encoder.b.weight": torch.zeros(1),
        "model_ema.encoderaweight": torch.ones(1),
    }
    selected = with_averages(state_dict)
    assert {key: value.item() for key, value in selected.items()} == {"encoder.a.weight": 1, "encoder.b.weight": 0}


def test_weights_of_another_architecture_are_refused_by_name(tiny_tokenizer, tmp_path):
    path = tmp_path / "other.pt"
    tokenizer = tiny_tokenizer("vq")
    weights = tokenizer.state_dict()
    del weights["quant_conv.bias"]
    weights["encoder.extra"] = torch.zeros(1)
    weights["quantize.embedding.weight"] = torch.zeros(16, 4)
    torch.save(weights, path)
    with pytest.raises(UserError) as refusal:
        load_tokenizer(path, config=tokenizer.config)
    for part in (
        str(path),
        "1 missing (quant_conv.bias)",
        "1 left over (encoder.extra)",
        "quantize.embedding.weight is (16, 4), expected (32, 4)",
    ):
        assert part in str(refusal.value)


def test_a_file_without_a_tokenizer_is_refused(tmp_path):
    torch.save({"optimizer": {}, "steps": 3}, tmp_path / "optimizer.pt")
    with pytest.raises(UserError, match=r"optimizer.pt is not a model in a known layout: it holds optimizer, steps"):
        load_tokenizer(tmp_path / "optimizer.pt")
