"""Reading third-party files: no code in them runs, and a file without weights is refused with a message."""

from __future__ import annotations

import argparse
import builtins
import copy
import io
import math
import os
import pickle
import random
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

from gear.archive import is_sealed
from gear.foreign import load_exactly, read_weights, unusable
from harness.contract.errors import UserError
from tests.gear.damage import damaged


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


def state() -> dict[str, Any]:
    """Small, with a tensor of each kind that a file may hold."""
    rng = torch.Generator().manual_seed(0)
    return {
        "vq": {"a": torch.randn(40, 3, generator=rng), "b": torch.randn(5, generator=rng).bfloat16()},
        "ar": {"table": torch.randn(16, 8, generator=rng), "counts": torch.arange(9)},
        "steps": 1234,
        "config": {"seed": 7, "name": "tiny", "rate": 1e-4},
    }


def written(kind: str, path: Path) -> bytes:
    """The bytes of a small file: as `torch.save` writes it now, as it did before 1.6, or safetensors."""
    if kind == "safetensors":
        safetensors.torch.save_file(state()["vq"], path)
    else:
        torch.save(state(), path, _use_new_zipfile_serialization=kind == "zip")
    return path.read_bytes()


def same(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    return bool(one == other)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_a_damaged_file_is_refused_or_the_same(kind, tmp_path):
    """The zip format has checksums: nothing that is read from it differs. The others have none, and may differ."""
    path, rng = tmp_path / "model.pt", random.Random(0)
    whole = written(kind, path)
    good = read_weights(path, mapped=False)
    sentences: list[str] = []
    for _ in range(400):
        path.write_bytes(damaged(whole, rng))
        for mapped in (True, False):
            try:
                found = read_weights(path, mapped=mapped)
            except UserError as error:
                sentences.append(str(error))
            else:
                assert kind != "zip" or same(found, good)
    assert len(sentences) > 100
    for sentence in sentences:
        assert str(path) in sentence and sentence.isprintable() and " at 0x" not in sentence


def test_every_bit_of_a_tensor_counts(tmp_path):
    path = tmp_path / "model.pt"
    torch.save({"a": torch.full((50,), 1.5)}, path)
    whole = path.read_bytes()
    first = whole.index(struct.pack("<f", 1.5) * 50)
    for bit in range(0, 50 * 32, 7):
        broken = bytearray(whole)
        broken[first + bit // 8] ^= 1 << bit % 8
        path.write_bytes(bytes(broken))
        with pytest.raises(UserError, match=r"model.pt cannot be read as weights \(its record 'model/data/0' does not"):
            read_weights(path)


def test_files_without_a_seal_are_read(tmp_path):
    torch.save(state(), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    computes = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(state(), tmp_path / "fast.pt")
    finally:
        torch.serialization.set_crc32_options(computes)
    torch.save(state(), tmp_path / "sealed.pt")
    assert [is_sealed(tmp_path / f"{name}.pt") for name in ("old", "fast", "sealed")] == [False, False, True]
    for name in ("old", "fast", "sealed"):
        assert same(read_weights(tmp_path / f"{name}.pt"), state())


# -- files that ask for more than a model needs: refused before anything is read into memory --


def repacked(path: Path, change: dict[str, bytes], compression: int) -> None:
    """Replace records of an archive by name, or add some."""
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    folder = next(iter(content)).partition("/")[0]
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in {**content, **{f"{folder}/{name}": data for name, data in change.items()}}.items():
            archive.writestr(name, data)


def a_compressed_pickle(path: Path) -> None:
    torch.save(state(), path)
    repacked(path, {"data.pkl": b"\x80\x02]" + b"N" * 200_000_000}, zipfile.ZIP_DEFLATED)


def a_long_pickle(path: Path) -> None:
    torch.save(state(), path)
    repacked(path, {"data.pkl": b"\x80\x02](" + b"N" * 2_000_000 + b"e."}, zipfile.ZIP_STORED)


def a_long_legacy_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2) + b"\x80\x02](" + b"N" * 2_000_000 + b"e.")


NESTED_TUPLES = {
    "one in the other": b"})" + b"\x85" * 500_000 + b"K\x01s.",
    "between marks": b"}" + b"(" * 200_000 + b"t" * 200_000 + b"K\x01s.",
    "through the memo": b"})" + b"q\x00h\x00\x86" * 200_000 + b"K\x01s.",
}
"""Pickles of a dictionary whose key is a tuple in a tuple in a tuple: looking into it overflows the stack."""


def tuples_in_tuples(path: Path, kind: str = "one in the other") -> None:
    torch.save(state(), path)
    repacked(path, {"data.pkl": b"\x80\x02" + NESTED_TUPLES[kind]}, zipfile.ZIP_STORED)


def between_marks(path: Path) -> None:
    tuples_in_tuples(path, "between marks")


def through_the_memo(path: Path) -> None:
    tuples_in_tuples(path, "through the memo")


def many_records(path: Path) -> None:
    torch.save(state(), path)
    repacked(path, {f"data/{number}": b"" for number in range(30_000)}, zipfile.ZIP_STORED)


def overlapping_records(path: Path) -> None:
    """Every entry of the directory leads to the same bytes."""
    torch.save({"a": torch.zeros(100_000)}, path)
    with zipfile.ZipFile(path, "a") as archive:
        record = archive.getinfo("model/data/0")
        for number in range(1, 500):
            twin = copy.copy(record)
            twin.filename = f"model/data/{number}"
            archive.filelist.append(twin)
        archive.comment = b"written again"


def many_tensors(path: Path) -> None:
    entry = '"t%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    header = ("{" + ",".join(entry % number for number in range(30_000)) + "}").encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header)


def a_large_header(path: Path) -> None:
    header = b'{"__metadata__":{"a":"' + b" " * 20_000_000 + b'"}}'
    path.write_bytes(struct.pack("<Q", len(header)) + header)


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (a_compressed_pickle, "record 'model/data.pkl' is compressed"),
        (a_long_pickle, "more than 1,000,000 instructions"),
        (a_long_legacy_pickle, "more than 1,000,000 instructions"),
        (tuples_in_tuples, "more than 1,000 tuples inside each other"),
        (between_marks, "more than 1,000 tuples inside each other"),
        (through_the_memo, "more than 1,000 tuples inside each other"),
        (many_records, r"30,\d+ records, and at most 20,000"),
        (overlapping_records, "claim to be larger than the file"),
        (many_tensors, "30,000 tensors, and at most 20,000"),
        (a_large_header, r"header has 20,000,\d+ bytes"),
    ],
)
def test_a_file_beyond_a_bound_is_refused(write, reason, tmp_path):
    path = tmp_path / "model.pt"
    write(path)
    with pytest.raises(UserError, match=rf"model.pt cannot be read as weights: .*{reason}.*save its state dict alone"):
        read_weights(path)


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


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float8_e5m2])
def test_a_weight_that_is_not_finite_is_refused_by_name(value, dtype):
    wrong = torch.zeros(2, 2)
    wrong[1, 0] = value
    layer = nn.Linear(2, 2)
    with pytest.raises(UserError, match=r"the file holds values that are not finite .* in 1 of its tensors \(weight\)"):
        load_exactly(layer, {"weight": wrong.to(dtype), "bias": torch.zeros(2)}, source="the file")


def test_large_and_empty_tensors_are_finite():
    fine = {"large": torch.full((3,), 65504.0).half(), "empty": torch.zeros(0, 3), "ids": torch.arange(3)}
    assert unusable(fine) == []


def test_a_tensor_without_values_is_refused():
    assert unusable({"sparse": torch.eye(2).to_sparse(), "meta": torch.zeros(2, device="meta")}) == ["sparse", "meta"]
    weights = {"weight": torch.eye(2).to_sparse(), "bias": torch.zeros(2)}
    with pytest.raises(UserError, match=r"or none at all, in 1 of its tensors \(weight\)"):
        load_exactly(nn.Linear(2, 2), weights, source="the file")


def test_a_value_that_a_tensor_repeats_is_looked_at_once():
    """Else a file of a few bytes keeps the machine busy for hours."""
    many = torch.tensor([1.0, 2.0])[:, None].expand(2, 10**12)
    assert unusable({"fine": many}) == []
    assert unusable({"wrong": torch.tensor([1.0, math.nan])[:, None].expand(2, 10**12)}) == ["wrong"]


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
