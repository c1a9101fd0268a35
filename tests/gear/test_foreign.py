"""Reading third-party files: no code in them runs, and a file without weights is refused with a message."""

from __future__ import annotations

import argparse
import builtins
import io
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

from gear.foreign import load_exactly, read_weights
from harness.contract.errors import UserError


class TrainerState:
    """Lightning stores such objects beside the weights: their class is not installed for the reader."""

    def __init__(self) -> None:
        self.history = [1, 2]


def touch(path: str) -> None:
    Path(path).touch()


class Calls:
    """Unpickling this calls a function, as malicious code would."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


class Built:
    """Unpickling this builds an object and hands it a state that holds the attack (the BUILD instruction)."""

    def __init__(self, attack: Any) -> None:
        self.attack = attack

    def __reduce__(self):
        return TrainerState, (), {"history": self.attack}


def test_objects_of_unknown_classes_are_left_out(tmp_path):
    torch.save({"state_dict": {"a": torch.ones(2)}, "callbacks": TrainerState()}, tmp_path / "model.ckpt")
    content = read_weights(tmp_path / "model.ckpt")
    assert torch.equal(content["state_dict"]["a"], torch.ones(2))
    assert not isinstance(content["callbacks"], TrainerState) and not content["callbacks"]


def test_the_settings_of_a_training_script_are_kept_as_plain_values(tmp_path):
    torch.save({"args": argparse.Namespace(image_size=384, loss=TrainerState())}, tmp_path / "model.pt")
    assert read_weights(tmp_path / "model.pt")["args"] == {"image_size": 384}


# -- malicious files: each of these leaves a trace when Python's own unpickler reads it, and none when we do --


def attacks(mark: Path) -> dict[str, Any]:
    """Name -> an object that is an attack when unpickled; each creates `mark`."""
    shell = Calls(os.system, f"touch {mark}")
    return {
        "a function of this project": Calls(touch, str(mark)),
        "the shell": shell,
        "a process": Calls(subprocess.check_call, [sys.executable, "-c", f"open({str(mark)!r}, 'w')"]),
        "the interpreter": Calls(builtins.exec, f"open({str(mark)!r}, 'w').close()"),
        "an import": Calls(builtins.eval, f"__import__('pathlib').Path({str(mark)!r}).touch()"),
        "a pickle inside": Calls(pickle.loads, pickle.dumps(shell)),
        "the state of a foreign class": Built(shell),
    }


PLACES = {
    "at the top": lambda attack: {"vq": {"a": torch.ones(2)}, "extra": attack},
    "among the weights": lambda attack: {"state_dict": {"a": torch.ones(2), "encoder.b": attack}},
    "deep in a Lightning file": lambda attack: {
        "state_dict": {"a": torch.ones(2)},
        "callbacks": {"ModelCheckpoint": {"best": [TrainerState(), (1, attack)]}},
        "hyper_parameters": Built(attack),
    },
}


def read_or_refused(path: Path) -> None:
    """Reads the safe part of the file, or returns the sentence that says why it was not read."""
    try:
        read_weights(path)
    except UserError as refusal:
        message = str(refusal)
    else:
        return
    assert str(path) in message and "cannot be read as weights" in message


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", list(attacks(Path())))
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_code_in_a_file_does_not_run(name, place, zipped, tmp_path):
    path, mark = tmp_path / "model.ckpt", tmp_path / "owned"
    torch.save(PLACES[place](attacks(mark)[name]), path, _use_new_zipfile_serialization=zipped)
    read_or_refused(path)
    assert not mark.exists()
    torch.load(path, weights_only=False)
    assert mark.exists(), "the attack was none"


def test_a_file_that_calls_the_system_is_refused(tmp_path):
    torch.save({"a": torch.ones(2), "shell": Calls(os.system, "true")}, tmp_path / "model.pt")
    with pytest.raises(UserError, match=r"asks for code to be run; .* \.safetensors"):
        read_weights(tmp_path / "model.pt")


def test_an_archive_with_paths_outside_of_it_writes_nothing(tmp_path):
    path = tmp_path / "inner" / "model.pt"
    path.parent.mkdir()
    torch.save({"a": torch.ones(2)}, path)
    with zipfile.ZipFile(path, "a") as archive:
        for name in ("../escaped", "../../escaped", f"{tmp_path}/escaped", "model/data/../../../escaped"):
            archive.writestr(name, b"#!/bin/sh\n")
    before = sorted(tmp_path.rglob("*"))
    read_or_refused(path)
    assert sorted(tmp_path.rglob("*")) == before
    assert not (tmp_path.parent / "escaped").exists()


def test_a_pickle_that_names_storages_outside_of_its_archive_reads_none(tmp_path):
    """The storage key becomes a name inside the archive; a path in it leads nowhere."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"\x01" * 8)
    path = tmp_path / "model.pt"
    torch.save({"a": torch.ones(2)}, path)
    content = {}
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in content.items():
            if name.endswith("data.pkl"):
                data = data.replace(b"X\x01\x00\x00\x000", b"X\x09\x00\x00\x00../secret")
                assert b"../secret" in data
            archive.writestr(name, data)
    with pytest.raises(UserError, match=r"model.pt cannot be read as weights"):
        read_weights(path)


@pytest.mark.parametrize("claimed", [2**62, 2**63 + 1, 10**9, 0, 200])
def test_a_safetensors_header_of_a_false_length_is_refused(claimed, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", claimed) + b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}' + b"\0" * 4)
    with pytest.raises(UserError, match=r"model.safetensors cannot be read as weights"):
        read_weights(path)


@pytest.mark.parametrize(
    "entry",
    [
        '"shape":[1],"data_offsets":[0,4000000000]',
        '"shape":[1],"data_offsets":[-4,0]',
        '"shape":[4611686018427387904],"data_offsets":[0,4]',
    ],
)
def test_a_safetensors_header_of_false_offsets_is_refused(entry, tmp_path):
    header = f'{{"a":{{"dtype":"F32",{entry}}}}}'.encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 4)
    with pytest.raises(UserError, match=r"model.safetensors cannot be read as weights"):
        read_weights(path)


# -- files without weights --


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", r"it is empty \(0 bytes\)"),
        (b"<html><body>404</body></html>", r"it is a web page; .* /resolve/"),
        (b"\n  <!DOCTYPE html>\n<html>", "it is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 9\n", "Git LFS pointer; .*`git lfs pull`"),
        (b"PK\x03\x04 torn", "it is truncated"),
        (b"a sentence", "cannot be read as weights"),
        (pickle.dumps({"a": 1}, protocol=2), "cannot be read as weights"),
    ],
    ids=["empty", "page", "page after blanks", "lfs", "torn archive", "text", "bare pickle"],
)
@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_a_file_without_weights_is_named_with_the_fix(content, reason, suffix, tmp_path):
    path = tmp_path / f"weights.{suffix}"
    path.write_bytes(content)
    with pytest.raises(UserError, match=reason) as refusal:
        read_weights(path)
    assert str(path) in str(refusal.value) and "cannot be read as weights" in str(refusal.value)


@pytest.mark.parametrize("size", [10, 1000, 20_000, 40_000])
def test_a_truncated_file_is_named(size, tmp_path):
    torch.save({"a": torch.ones(10_000)}, tmp_path / "whole.pt")
    safetensors.torch.save_file({"a": torch.ones(10_000)}, tmp_path / "whole.safetensors")
    for suffix in ("pt", "safetensors"):
        path = tmp_path / f"part.{suffix}"
        path.write_bytes((tmp_path / f"whole.{suffix}").read_bytes()[:size])
        with pytest.raises(UserError, match=rf"part.{suffix} cannot be read as weights"):
            read_weights(path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_file_with_flipped_bytes_is_read_or_named(tmp_path):
    """Every byte of the pickle in turn: whatever error the unpickler raises, the user gets one sentence."""
    buffer = io.BytesIO()
    torch.save({"a": torch.ones(1), "args": argparse.Namespace(size=1)}, buffer)
    with zipfile.ZipFile(buffer) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    (name,) = (name for name in content if name.endswith("data.pkl"))
    path = tmp_path / "model.pt"
    for position in range(len(content[name])):
        damaged = bytearray(content[name])
        damaged[position] ^= 0x15
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            for entry, data in content.items():
                archive.writestr(entry, bytes(damaged) if entry == name else data)
        read_or_refused(path)


def test_the_content_decides_not_the_name(tmp_path):
    safetensors.torch.save_file({"a": torch.ones(2)}, tmp_path / "model.bin")
    torch.save({"a": torch.ones(2)}, tmp_path / "model.safetensors")
    for name in ("model.bin", "model.safetensors"):
        assert torch.equal(read_weights(tmp_path / name)["a"], torch.ones(2))


def test_a_refused_load_changes_nothing():
    layer = nn.Linear(2, 2)
    before = layer.weight.clone()
    with pytest.raises(UserError, match=r"the file does not fit the Linear: 1 missing \(bias\)"):
        load_exactly(layer, {"weight": torch.zeros(2, 2)}, source="the file")
    assert torch.equal(layer.weight, before)


def test_a_loaded_model_does_not_need_its_file(tmp_path):
    """Saving over the file that a model came from is common, and a mapped file that shrinks ends the process."""
    path = tmp_path / "model.pt"
    torch.save({"weight": torch.full((64, 64), 3.0), "bias": torch.zeros(64, dtype=torch.bfloat16)}, path)
    with torch.device("meta"):
        layer = nn.Linear(64, 64)
    load_exactly(layer, read_weights(path), source="the file", assign=True)
    torch.save({}, path)
    assert torch.equal(layer.weight, torch.full((64, 64), 3.0)) and layer.bias.dtype == torch.float32
    assert layer.weight.requires_grad
