"""Damaged models, opened as the commands do: the same model, a sentence, or, without a seal, an honest other one."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from gear.convert import to_hub
from gear.weights import describe, open_model
from harness.contract.errors import UserError
from tests.gear import tiny
from tests.gear.damage import damaged
from tests.gear.same_bits import assert_same_bits
from tests.gear.small_models import TOKENIZERS, weights

ROUNDS = 60


def as_model_file(path: Path) -> Path:
    torch.save(tiny.stage("e2e").weights(), path)
    return path


def as_legacy(path: Path) -> Path:
    settings = {"args": {"vq_model": "VQ-16", "image_size": 16}, "steps": 3}
    torch.save({"model": weights(TOKENIZERS["vq"], 1), **settings}, path, _use_new_zipfile_serialization=False)
    return path


def as_safetensors(path: Path) -> Path:
    safetensors.torch.save_file(weights(TOKENIZERS["lfq"], 1), path)
    return path


def as_folder(path: Path) -> Path:
    return to_hub(open_model(as_model_file(path.with_name("whole.pt"))), path.with_name("hub"))


def damage(file: Path, rng: random.Random, near_start: bool) -> None:
    """Damage a file in its first bytes, where its structure is, or anywhere."""
    file.write_bytes(damaged(file.read_bytes(), rng, within=4000 if near_start else None))


def used(source: Path) -> Any:
    """What the commands do with a model: tell what it is, build its tokenizer, and its AR model where it has one."""
    describe(source)
    model = open_model(source)
    return [model.tokenizer().state_dict(), *([model.ar().state_dict()] if model.has("ar") else [])]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("write", "sealed"), [(as_model_file, True), (as_legacy, False), (as_safetensors, False), (as_folder, True)]
)
def test_a_damaged_model_is_the_same_or_refused(write: Callable[[Path], Path], sealed: bool, tmp_path: Path) -> None:
    rng, whole = random.Random(2), write(tmp_path / "whole.model")
    good, refused = used(whole), 0
    for number in range(ROUNDS):
        copy = tmp_path / f"{number}.model"
        (shutil.copytree if whole.is_dir() else shutil.copyfile)(whole, copy)
        target = copy
        if copy.is_dir():
            target = rng.choice([path for path in sorted(copy.iterdir()) if path.suffix != ".md"])
        damage(target, rng, near_start=number % 2 == 0)
        try:
            found = used(copy)
        except UserError as error:
            refused += 1
            sentence = str(error)
        else:
            sentence = str(copy)
            if sealed:
                assert_same_bits(found, good)
        assert str(copy) in sentence and sentence.isprintable()
    assert refused > ROUNDS // 4
