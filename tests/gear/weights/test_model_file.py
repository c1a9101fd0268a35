"""What loading reports and refuses: one sentence, with the fix."""

from __future__ import annotations

import dataclasses
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

import gear
from gear.tokenizers import VQConfig
from gear.weights import describe, load_ar, load_tokenizer, open_model
from harness.contract.errors import UserError
from tests.gear import tiny
from tests.gear.published import build, shapes_of, weightless
from tests.gear.small_models import ARS, TOKENIZERS, gear_content, preset, weights


@pytest.fixture
def content() -> dict[str, Any]:
    """A file of the reference's end-to-end stage."""
    return gear_content()


def save(content: Any, path: Path) -> Path:
    torch.save(content, path)
    return path


def refusal_of(call: Any, *arguments: Any, **options: Any) -> str:
    """The sentence: one line, and the source is in it."""
    with pytest.raises(UserError) as refusal:
        call(*arguments, **options)
    message = str(refusal.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("family", TOKENIZERS)
def test_sizes_of_a_small_tokenizer_are_inferred_from_its_tensors(family, tmp_path):
    """Not only published sizes: different multipliers of encoder and decoder, attention at any level, any depth."""
    path = save(weights(TOKENIZERS[family], 1), tmp_path / "t.pt")
    assert open_model(path).tokenizer_config == TOKENIZERS[family]


def test_a_tokenizer_loads_alike_from_every_container(tmp_path):
    state = weights(TOKENIZERS["lfq"], 1)
    safetensors.torch.save_file(state, tmp_path / "t.safetensors")
    save(state, tmp_path / "t.bin")
    save({"model": {f"module._orig_mod.{key}": value for key, value in state.items()}}, tmp_path / "t.pt")
    save(
        {"vq": {key.replace("encoder.", "encoder._fsdp_wrapped_module."): v for key, v in state.items()}},
        tmp_path / "t.pth",
    )
    images = torch.rand(2, 3, 8, 8) * 2 - 1
    codes = [
        load_tokenizer(tmp_path / name).encode(images).code_ids for name in ("t.safetensors", "t.bin", "t.pt", "t.pth")
    ]
    assert all(torch.equal(codes[0], other) for other in codes[1:])


def test_half_precision_files_become_float32_models(tmp_path):
    state = {key: value.bfloat16() for key, value in weights(ARS["c2i"], 1).items()}
    ar = load_ar(save({"ar": state}, tmp_path / "ar.pt"), config=ARS["c2i"])
    assert ar.output.weight.dtype == torch.float32
    assert torch.equal(ar.output.weight, state["output.weight"].float())


def test_an_unregistered_size_needs_its_configuration(tmp_path):
    path = save(weights(ARS["c2i"], 1), tmp_path / "ar.pt")
    message = refusal_of(load_ar, path, image_size=64)
    assert "3 blocks of width 16 are not a registered size" in message and "--preset" in message
    assert load_ar(path, config=ARS["c2i"]).config == ARS["c2i"]


def test_a_rotary_table_tells_heads_and_image_size(tmp_path):
    state = {**weights(ARS["c2i"], 1), "freqs_cis": torch.zeros(17, 4, 2)}
    model = open_model(save({"model": state}, tmp_path / "ar.pt"))
    assert (model.ar_config().n_head, model.ar_config().block_size, model.image_size) == (2, 16, 64)


# -- each of these once silently loaded nothing, or the wrong thing --


def test_a_wrapper_of_something_else_says_what_was_found(tmp_path):
    path = save({"model": {"backbone.weight": torch.ones(2)}, "steps": 3}, tmp_path / "other.pt")
    message = refusal_of(load_tokenizer, path)
    assert "other.pt is not a model in a known layout: the tensors under 'model' belong to neither" in message
    assert "backbone.weight" in message and "give a GEAR, LlamaGen" in message


def test_a_wrapper_in_a_wrapper_says_so(tmp_path):
    path = save({"model": {"model": weights(TOKENIZERS["vq"], 1)}}, tmp_path / "other.pt")
    assert "'model' in it is not a state dict (found: model)" in refusal_of(load_tokenizer, path)


def test_live_weights_are_not_taken_from_a_file_of_averages(content, tmp_path):
    path = save({"vq_ema": content["vq_ema"], "ema": content["ema"]}, tmp_path / "ema.pt")
    for load in (load_tokenizer, load_ar):
        message = refusal_of(load, path, ema=False)
        assert "holds averaged weights only" in message and "--no-ema" in message
    assert torch.equal(load_tokenizer(path).quantize.embedding.weight, content["vq_ema"]["quantize.embedding.weight"])


def test_a_384_px_model_is_not_taken_for_256_px(tmp_path):
    state = weightless(shapes_of(build("c2i-LlamaGen-S")))
    for name, content in {
        "by its settings.pt": {"model": state, "args": {"image_size": 384}},
        "c2i_S_384.pt": {"model": state},
        "by its table.pt": {"model": {**state, "freqs_cis": torch.zeros(577, 16, 2)}},
    }.items():
        path = save(content, tmp_path / name)
        message = refusal_of(load_ar, path, image_size=256)
        assert "was trained for 384 px images, but 256 px were asked for; give a model of that size" in message
        assert load_ar(path, image_size=384).config.block_size == 24**2


def test_a_preset_of_another_image_size_is_refused(content, tmp_path):
    path = save(content, tmp_path / "gear.pt")
    other = preset()
    other = dataclasses.replace(other, data=dataclasses.replace(other.data, image_size=16))
    assert "was trained for 8 px images, but 16 px were asked for" in refusal_of(load_ar, path, preset=other)
    assert load_ar(path, preset=preset()).config == ARS["c2i"]


def test_an_unrecorded_image_size_is_assumed_with_a_warning(tmp_path, caplog):
    path = save({"ar": weightless(shapes_of(build("c2i-LlamaGen-S")))}, tmp_path / "ar.pt")
    assert load_ar(path).config.block_size == 256
    assert "does not record its image size; 256 px is assumed" in caplog.text


def test_an_ar_file_is_not_a_tokenizer_nor_the_other_way_round(content, tmp_path):
    ar = save({"ar": content["ar"]}, tmp_path / "ar.pt")
    vq = save({"vq": content["vq"]}, tmp_path / "vq.pt")
    assert "ar.pt holds no tokenizer (it has ar); name its file as well (--vq-ckpt" in refusal_of(load_tokenizer, ar)
    assert "vq.pt holds no AR model (it has vq)" in refusal_of(load_ar, vq)


@pytest.mark.parametrize("layout", ["vq", "model", "state_dict"])
def test_unknown_keys_are_named(layout, tmp_path):
    state = {**weights(TOKENIZERS["vq"], 1), "encoder.conv_blocks.0.lora.weight": torch.ones(1)}
    message = refusal_of(load_tokenizer, save({layout: state}, tmp_path / "t.pt"))
    assert "1 left over (encoder.conv_blocks.0.lora.weight)" in message


def test_unknown_keys_beside_lightning_averages_are_named(tmp_path):
    """The reference keeps a list of prefixes there and ignores everything else."""
    live = weights(TOKENIZERS["ibq"], 1)
    shadows = {"model_ema." + key.replace(".", ""): value for key, value in live.items()}
    path = save({"state_dict": {**live, **shadows, "adapter.weight": torch.ones(1)}}, tmp_path / "t.ckpt")
    assert "1 left over (adapter.weight)" in refusal_of(load_tokenizer, path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("encoder.conv_in.weight", torch.zeros(())),
        ("encoder.conv_in.weight", torch.zeros(0, 3, 3, 3)),
        ("quantize.embedding.weight", torch.zeros(4)),
        ("encoder.conv_out.weight", torch.zeros(())),
    ],
)
@pytest.mark.parametrize("family", ["vq", "lfq", "ibq"])
def test_tensors_of_impossible_shapes_are_an_unknown_tokenizer(family, key, value, tmp_path):
    message = refusal_of(load_tokenizer, save({**weights(TOKENIZERS[family], 1), key: value}, tmp_path / "t.pt"))
    assert "t.pt" in message


def test_another_kind_of_model_with_an_encoder_is_an_unknown_tokenizer(tmp_path):
    path = save({"encoder.layer.0.weight": torch.ones(2)}, tmp_path / "bert.pt")
    assert "belong to no known tokenizer family (known: vq, lfq, glfq, ibq)" in refusal_of(load_tokenizer, path)


def test_a_part_that_is_no_state_dict_is_named(tmp_path):
    path = save({"vq": {"encoder": {"weight": torch.ones(1)}}}, tmp_path / "t.pt")
    assert "'vq' of" in refusal_of(open_model, path)


def test_what_was_dropped_is_logged_and_returned(tmp_path, caplog):
    state = {**weights(TOKENIZERS["vq"], 1), "quantize.codebook_used": torch.zeros(65_536)}
    path = save({"model": state, "optimizer": {}, "epoch": 3}, tmp_path / "vq.pt")
    model = open_model(path)
    assert model.dropped["quantize.codebook_used"].startswith("1 tensors: LlamaGen's window")
    assert model.dropped.keys() == {"quantize.codebook_used", "optimizer", "epoch"}
    with caplog.at_level(logging.INFO):
        model.tokenizer()
    assert "left out: quantize.codebook_used" in caplog.text


# -- our own run folders, and what `gear info` says --


def test_a_run_folder_carries_its_configuration(tmp_path):
    stage = tiny.stage("e2e")
    torch.save(stage.weights(), tmp_path / "model.pt")
    model = open_model(tmp_path)
    assert model.config == stage.config
    assert model.tokenizer_config == stage.config.tokenizer and model.ar_config() == stage.config.ar
    assert (model.phase, model.image_size) == ("e2e", tiny.IMAGE_SIZE)
    facts = describe(tmp_path)
    assert facts["averaged_weights"] == ["vq_ema", "ema"]
    assert facts["config"]["name"] == "tiny"


def test_the_tokenizer_that_an_ar_file_records_is_known(tmp_path):
    args = {"vq_model": "VQ-16", "codebook_size": 64, "codebook_embed_dim": 32}
    model = open_model(save({"ar": weights(ARS["c2i"], 1), "args": args}, tmp_path / "ar.pt"))
    assert isinstance(model.trained_with, VQConfig)
    assert (model.trained_with.num_codes, model.trained_with.code_dim, model.downsample) == (64, 32, 16)


def test_the_package_offers_its_functions_without_importing_torch():
    assert gear.load_tokenizer is load_tokenizer and gear.load_ar is load_ar
    code = "import sys, gear; assert 'torch' not in sys.modules; dir(gear); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="has no attribute 'load_everything'"):
        gear.load_everything  # noqa: B018
