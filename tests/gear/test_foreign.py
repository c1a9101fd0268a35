"""Reading files of strangers: no code of theirs runs, and a file that is no weights says so."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from gear.foreign import load_exactly, read_weights
from harness.contract.errors import UserError


class TrainerState:
    """As Lightning stores beside the weights: an object of a class that a reader does not have."""

    def __init__(self) -> None:
        self.history = [1, 2]


def touch(path: str) -> None:
    Path(path).touch()


class Touch:
    """Unpickling this calls `touch`: stands for any code of a stranger's."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return touch, (str(self.path),)


class Shell:
    def __reduce__(self):
        return os.system, ("true",)


def test_objects_of_unknown_classes_are_left_out(tmp_path):
    torch.save({"state_dict": {"a": torch.ones(2)}, "callbacks": TrainerState()}, tmp_path / "model.ckpt")
    content = read_weights(tmp_path / "model.ckpt")
    assert torch.equal(content["state_dict"]["a"], torch.ones(2))
    assert not isinstance(content["callbacks"], TrainerState) and not content["callbacks"]


def test_code_in_a_file_does_not_run(tmp_path):
    torch.save({"a": torch.ones(2), "touch": Touch(tmp_path / "touched")}, tmp_path / "model.pt")
    assert torch.equal(read_weights(tmp_path / "model.pt")["a"], torch.ones(2))
    assert not (tmp_path / "touched").exists()


def test_a_file_that_reaches_for_the_system_is_refused(tmp_path):
    torch.save({"a": torch.ones(2), "shell": Shell()}, tmp_path / "model.pt")
    with pytest.raises(UserError, match="cannot be read as weights"):
        read_weights(tmp_path / "model.pt")


@pytest.mark.parametrize(
    "content",
    [b"", b"<html>404</html>", pickle.dumps(TrainerState(), protocol=2)],
    ids=["an empty file", "an error page", "a bare pickle"],
)
@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_a_file_that_is_no_weights_is_named(content, suffix, tmp_path):
    path = tmp_path / f"weights.{suffix}"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"weights.{suffix} cannot be read as weights"):
        read_weights(path)


def test_a_truncated_file_is_named(tmp_path):
    torch.save({"a": torch.ones(10_000)}, tmp_path / "whole.pt")
    (tmp_path / "half.pt").write_bytes((tmp_path / "whole.pt").read_bytes()[:20_000])
    with pytest.raises(UserError, match=r"half.pt cannot be read"):
        read_weights(tmp_path / "half.pt")


def test_a_refused_load_changes_nothing():
    layer = nn.Linear(2, 2)
    before = layer.weight.clone()
    with pytest.raises(UserError, match=r"the file does not fit the Linear .* 1 missing \(bias\)"):
        load_exactly(layer, {"weight": torch.zeros(2, 2)}, source="the file")
    assert torch.equal(layer.weight, before)
