"""The command `gear sample`: what it refuses, what it records, which text encoder it uses."""

from __future__ import annotations

import json
import subprocess
from dataclasses import field, fields, make_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import pytest
import torch
from click.testing import CliRunner

from gear.ar.t2i import TextToImageAR
from gear.cli import main
from gear.cli.sample import protocol_options
from harness.contract.fields import field_types
from harness.contract.requests import SamplingProtocol
from harness.contract.samples import SampleSet
from tests.gear import tiny, tiny_text
from tests.gear.sampling.conftest import run, sample_command, toy_requests


def sample(*arguments: object) -> tuple[int, str]:
    """Exit status and all output."""
    result = CliRunner().invoke(main, ["-q", "sample", *map(str, arguments)])
    return result.exit_code, result.output


def generator(folder: Path) -> dict[str, Any]:
    """The recorded generator of a finished sample set."""
    return json.loads((folder / "samples.json").read_text())["generator"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--cfg-scale", 3), "the request set already decides --cfg-scale"),
        (("--labels", "balanced"), "the request set already decides --labels"),
        (("--seed", 5), "the request set already decides --seed"),
        (("--parity", "--processes", 2), "--parity runs in one process"),
        (("--parity", "--parity-ranks", 0), "0 is not in the range"),
        (("--device", "mps"), "no device named 'mps'"),
        (("--count", 4, "--per-class", 2), "the request set already decides"),
    ],
)
def test_options_that_would_be_ignored_are_refused(
    options: tuple[object, ...], words: str, model_file, tmp_path
) -> None:
    toy_requests(2).write(tmp_path / "requests")
    where = ("--ckpt", model_file, "--requests", tmp_path / "requests", "--out", tmp_path / "out")
    code, said = sample(*where, *options)
    assert code == 2 and words in said, said
    assert not (tmp_path / "out").exists()


def test_the_protocol_has_one_option_per_field_and_a_new_field_gets_its_own(monkeypatch) -> None:
    """Name, type, default and help come from the dataclass: adding a field there is all that is needed."""
    extended = make_dataclass(
        "Extended",
        [("min_p", float, field(default=0.25, metadata={"help": "Likelihood at least."}))],
        bases=(SamplingProtocol,),
        kw_only=True,
        frozen=True,
    )
    module = import_module("gear.cli.sample")  # the package has a command of this name
    for protocol in (SamplingProtocol, extended):
        monkeypatch.setattr(module, "SamplingProtocol", protocol)
        command = click.command(protocol_options(lambda **options: None))
        options = {str(option.name): option for option in command.params}
        assert list(options) == [entry.name for entry in fields(protocol)]
        for entry in fields(protocol):
            option = options[entry.name]
            assert isinstance(option, click.Option) and str(option.help).endswith(entry.metadata["help"])
            assert option.opts == [f"--{entry.name.replace('_', '-')}"]
            assert option.default == (None if entry.name == "image_size" else entry.default)
            assert option.type.name == {"int": "integer", "float": "float"}[field_types(protocol)[entry.name].__name__]
    shown = {str(option.name) for option in main.commands["sample"].params}
    assert shown >= {entry.name for entry in fields(SamplingProtocol)}


def test_an_impossible_size_is_refused(model_file, tmp_path) -> None:
    code, said = sample("--ckpt", model_file, "--count", 4, "--image-size", 0, "--out", tmp_path / "out")
    assert code == 2 and "image_size 0 is not within" in said


def test_two_ways_to_say_how_many_are_refused(model_file, tmp_path) -> None:
    code, said = sample("--ckpt", model_file, "--count", 4, "--per-class", 2, "--out", tmp_path / "out")
    assert code == 2 and "--count and --per-class both say how many images" in said


def test_parity_is_refused_in_one_of_several_processes(model_file, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    code, said = sample("--ckpt", model_file, "--count", 4, "--parity", "--out", tmp_path / "out")
    assert code == 2 and "--parity runs in one process" in said


def test_the_record_says_how_labels_were_chosen(model_file, tmp_path) -> None:
    for options, labels in ((("--count", 4), "random"), (("--per-class", 2), "balanced")):
        code, said = sample("--ckpt", model_file, *options, "--out", tmp_path / labels)
        assert code == 0, said
        assert generator(tmp_path / labels)["labels"] == labels


def test_parity_uses_the_published_batch_by_default(model_file, tmp_path) -> None:
    assert sample("--ckpt", model_file, "--count", 4, "--parity", "--out", tmp_path / "out")[0] == 0
    assert generator(tmp_path / "out")["parity"] == {"seed": 0, "num_ranks": 1, "batch": 32}


def test_a_set_finished_by_others_does_not_count_as_success_of_several_processes(model_file, tmp_path) -> None:
    for seed in (0, 5):
        toy_requests(4 + seed).write(tmp_path / f"requests-{seed}")
    run(sample_command(model_file, tmp_path / "requests-0", tmp_path / "out"))
    command = sample_command(model_file, tmp_path / "requests-5", tmp_path / "out", "--processes", 2)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "another request set" in done.stderr


@pytest.fixture
def text_model(tmp_path: Path) -> Path:
    """A text-to-image model in the reference's layout, whose settings name the folder of its text encoder."""
    config = tiny_text.config()
    encoder = tmp_path / "encoder"
    tiny_text.qwen3().save_pretrained(encoder)
    tiny_text.tokenizer().save_pretrained(encoder)
    torch.manual_seed(0)
    ar = TextToImageAR(config.text_ar)
    torch.nn.init.normal_(ar.output.weight, std=0.5)
    settings = {"image_size": 8, "downsample_ratio": 2, "text_encoder": str(encoder), "cls_token_num": 6}
    parts = {"vq": tiny.stage("tokenizer").modules["vq"].state_dict(), "ar": ar.state_dict()}
    torch.save({**parts, "args": {**settings, "n_head": config.ar.n_head}}, tmp_path / "t2i.pt")
    return tmp_path / "t2i.pt"


def test_the_settings_of_a_reference_checkpoint_name_its_text_encoder(text_model: Path, tmp_path: Path) -> None:
    code, said = sample("t2i", "--ckpt", text_model, "--prompt", "a cat", "--out", tmp_path / "out")
    assert code == 0, said
    identity = generator(tmp_path / "out")["text_encoder"]
    assert (identity["name"], identity["slots"], identity["dtype"]) == ("qwen3", 6, "float32")


def test_another_text_encoder_is_another_generator(text_model: Path, tmp_path: Path) -> None:
    """Its folder may have any name: the content decides."""
    asked = ("t2i", "--ckpt", text_model, "--prompt", "a cat", "--out", tmp_path / "out", "--text-encoder")
    assert sample(*asked, tmp_path / "encoder")[0] == 0
    moved = (tmp_path / "encoder").rename(tmp_path / "moved")
    assert sample(*asked, moved)[0] == 0
    digest = SampleSet.open(tmp_path / "out").digest

    weights = next(moved.glob("*.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    code, said = sample(*asked, moved)
    assert code == 2 and "holds samples of another generator" in said, said
    assert SampleSet.open(tmp_path / "out").digest == digest
