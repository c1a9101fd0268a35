from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch

from gear.ar.model import ClassConditionalAR
from gear.ar.t2i import TextToImageAR
from gear.config import RunConfig, load_config
from gear.presets import preset_names
from gear.tokenizers import build_tokenizer
from harness.contract.errors import UserError
from tests.gear import tiny


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_builds_its_models_and_has_every_stage(name: str) -> None:
    config = load_config(name)
    with torch.device("meta"):
        build_tokenizer(config.tokenizer)
        ar = ClassConditionalAR(config.class_ar) if config.text is None else TextToImageAR(config.text_ar)
    assert ar.config.block_size == config.tokenizer.tokens(config.data.image_size)
    for phase in config.phases:
        config.stage(phase)


@pytest.mark.parametrize("name", preset_names())
def test_a_configuration_survives_the_checkpoint(name: str) -> None:
    config = load_config(name)
    assert RunConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_numbers_that_follow_from_others_are_derived() -> None:
    config = load_config("demo", ["tokenizer.codebook_size=512"])
    assert (config.class_ar.vocab_size, config.class_ar.block_size, config.class_ar.num_classes) == (512, 64, 10)


def test_a_contradiction_is_refused() -> None:
    with pytest.raises(UserError, match=r"ar\.vocab_size is 99 .* leave it out"):
        load_config("demo", ["ar.vocab_size=99"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("stages.e2e.stepz=3", r"no field 'stages\.e2e\.stepz'; did you mean 'steps'"),
        ("stages.e2e.steps=many", r"stages\.e2e\.steps must be a whole number, not 'many'"),
        ("stages.e2e.steps=0", r"stages\.e2e\.steps must be a whole number of at least 1, not 0"),
        ("stages.e2e.steps=true", "must be a whole number"),
        ("gear.temperature=-1", r"gear\.temperature must be a number above 0, not -1"),
        ("gear.tap_layer=9", "tap_layer is 9 but the AR model has 4 blocks"),
        ("tokenizer.codebook_sice=3", "did you mean 'codebook_size'"),
        ("data.random_hflip=true", "must not be mirrored"),
        ("precision=fp8", "choose one of fp32, bf16"),
        ("teacher.spatial_norm=zcore", "choose one of none, demean, zscore"),
        ("steps", r"not of the form section\.field=value"),
        ("name.first=a", "'name' is a single value, not a section"),
    ],
)
def test_a_wrong_override_is_one_sentence_that_names_the_field(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_config("demo", [override])


@pytest.mark.parametrize("text", ["1e-3", "1.e-3", ".001e0", "1.0E-3", "+1e-3", "0.001"])
def test_numbers_in_scientific_notation_are_numbers(tmp_path: Path, text: str) -> None:
    """PyYAML reads YAML 1.1, in which most of them are strings."""
    path = tmp_path / "mine.yaml"
    path.write_text(f"extends: demo\nstages: {{ar: {{ar: {{lr: {text}}}}}}}\n")
    for config in (load_config("demo", [f"stages.ar.ar.lr={text}"]), load_config(path)):
        assert config.stages["ar"].ar.lr == 1e-3


def test_text_that_begins_like_a_number_stays_text() -> None:
    assert load_config("demo", ["watch.project=1e-3b"]).watch.project == "1e-3b"
    with pytest.raises(UserError, match=r"stages\.ar\.ar\.lr must be a number, not '1e-3'"):
        load_config("demo", ["stages.ar.ar.lr='1e-3'"])


def test_an_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean demo"):
        load_config("demmo")


def test_a_file_may_extend_a_preset(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("extends: demo\nname: mine\nstages: {e2e: {steps: 7}}\n")
    mine, base = load_config(path), load_config("demo")
    assert mine.stages["e2e"].steps == 7
    assert mine.stages["e2e"].batch_size == base.stages["e2e"].batch_size
    assert mine.tokenizer == base.tokenizer


def test_another_tokenizer_family_inherits_no_fields(tmp_path: Path) -> None:
    path = tmp_path / "lfq.yaml"
    path.write_text(
        "extends: demo\ntokenizer: {family: lfq, codebook_size: 256, ch: 32, ch_mult: [1, 1, 2], num_res_blocks: 1}\n"
    )
    assert load_config(path).tokenizer.family == "lfq"


def test_a_missing_section_is_named() -> None:
    values = copy.deepcopy(tiny.VALUES)
    del values["tokenizer"]
    with pytest.raises(UserError, match="no section 'tokenizer'"):
        RunConfig.from_dict(values)
