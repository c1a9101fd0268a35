"""Every published architecture, full size and in its released layout, loads through the same function.

The tensors are a single number each (strides of zero), so files of billions of parameters take a few hundred kB.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from gear.ar import TEXT_AR_SIZES, TextARConfig, TextToImageAR
from gear.tokenizers import TOKENIZERS
from gear.tokenizers.recognise import tokenizer_name
from gear.weights import ModelFile, check_pair, load_ar, open_model
from tests.gear.published import AR_NAMES, TOKENIZER_NAMES, build, projector_shapes, shapes_of, spec, weightless

ORIGINALS = {
    "vq-16.original-llamagen": "model",
    "vq-8.original-llamagen": "model",
    "lfq-16.original-open-magvit2": "state_dict",
    "ibq-16.original-seed-voken": "state_dict",
}
"""Key maps of the released files -> the key that their state dict is under."""

LIVE, AVERAGED, ELSE = 1.0, 2.0, 3.0


def saved(content: Any, path: Path) -> ModelFile:
    torch.save(content, path)
    return open_model(path)


def original_weights(name: str) -> dict[str, torch.Tensor]:
    """What the released file holds: from the full map if there is one, else the architecture and typical extras."""
    full = spec(name)
    ours = shapes_of(build(name.partition(".")[0]))
    if full is not None:
        shapes = full["shapes"]
    elif name.startswith("vq"):
        shapes = {**ours, "quantize.codebook_used": [65_536]}
    else:
        averages = {"model_ema." + key.replace(".", ""): shape for key, shape in ours.items()}
        bookkeeping = {"model_ema.decay": [], "model_ema.num_updates": []}
        shapes = {**ours, "loss.discriminator.main.0.weight": [64, 3, 4, 4], **averages, **bookkeeping}
    live = weightless({key: shape for key, shape in shapes.items() if key in ours}, LIVE)
    shadows = weightless({key: shape for key, shape in shapes.items() if key.startswith("model_ema.")}, AVERAGED)
    return {**weightless(shapes, ELSE), **live, **shadows}


def values_of(module: nn.Module) -> set[float]:
    """The numbers that its weights are made of."""
    return {parameter.flatten()[0].item() for parameter in module.parameters()}


@pytest.mark.parametrize("name", TOKENIZER_NAMES)
def test_a_tokenizer_is_recognised_from_its_tensors(name, tmp_path):
    weights = weightless(shapes_of(build(name)))
    for content in ({"vq": weights, "vq_ema": weights}, weights):
        model = saved(content, tmp_path / "tokenizer.pt")
        assert model.tokenizer_config == TOKENIZERS[name.upper()]
        assert shapes_of(model.tokenizer()) == shapes_of(build(name))
        assert tokenizer_name(model.tokenizer_config) == name.upper()


@pytest.mark.parametrize("name", ORIGINALS)
def test_an_original_tokenizer_file_loads(name, tmp_path):
    wrapper = ORIGINALS[name]
    weights = original_weights(name)
    content = {wrapper: weights, "epoch": 3, "global_step": 7, "optimizer_states": [{}]}
    model = saved(content, tmp_path / "original.ckpt")
    assert tokenizer_name(model.tokenizer_config) == name.partition(".")[0].upper()
    assert model.steps == 7
    assert {"epoch", "optimizer_states"} <= model.dropped.keys()
    assert values_of(model.tokenizer(ema=False)) == {LIVE}
    if wrapper == "state_dict":
        assert model.layout == "Lightning"
        assert values_of(model.tokenizer()) == {AVERAGED}
        assert "loss.*" in model.dropped
    else:
        assert model.layout == "LlamaGen"
        assert values_of(model.tokenizer()) == {LIVE}
        assert "quantize.codebook_used" in model.dropped


@pytest.mark.parametrize("name", AR_NAMES)
def test_an_ar_model_is_recognised_from_its_tensors_and_loads(name, tmp_path):
    """Really loads: models of billions of parameters are built over the tensors of the file."""
    torch.save(weightless(shapes_of(build(name)), LIVE), tmp_path / "ar.pt")
    ar = load_ar(tmp_path / "ar.pt", image_size=256)
    expected = build(name).config
    assert (ar.config.dim, ar.config.n_layer, ar.config.n_head) == (expected.dim, expected.n_layer, expected.n_head)
    assert (ar.config.ffn_dim, ar.config.vocab_size, ar.config.block_size) == (expected.ffn_dim, 16_384, 256)
    assert isinstance(ar, TextToImageAR) == name.startswith("t2i")
    if isinstance(ar.config, TextARConfig):
        assert ar.config.num_double_stream == expected.num_double_stream
        assert (ar.config.cls_token_num, ar.config.caption_dim) == (300, 2048)
    assert ar.output.weight[-1, -1] == LIVE and ar.layers[-1].feed_forward.w2.weight[0, 0] == LIVE
    assert ar.rotary_table.device.type == "cpu" and ar.rotary_table[-1].abs().sum() > 0
    assert not ar.training
    check_pair(TOKENIZERS["VQ-16"], ar, image_size=256)


@pytest.mark.parametrize("wrapper", ["model", "module", "state_dict", None])
def test_a_llamagen_ar_file_loads_from_every_wrapper(wrapper, tmp_path):
    """DDP, DeepSpeed, Lightning, and FSDP's bare dictionaries; the file name gives the image size."""
    weights = weightless(shapes_of(build("c2i-LlamaGen-B")), LIVE)
    weights["freqs_cis"] = torch.zeros(1).expand(577, 32, 2)
    content = weights if wrapper is None else {wrapper: weights, "optimizer": {}, "steps": 5, "ema": weights}
    model = saved(content, tmp_path / "c2i_B_384.pt")
    assert model.image_size == 384
    assert model.ar_config().block_size == 576
    assert model.ar(ema=False).config.n_head == 12
    assert "freqs_cis" in model.dropped


def test_the_original_text_to_image_model_has_no_text_stream_and_its_null_caption_is_named(tmp_path):
    """120 text slots of LlamaGen; no block has separate projections for text."""
    weights = {key: shape for key, shape in shapes_of(build("t2i-LlamaGen-XL")).items() if "_text" not in key} | {
        "cls_embedding.uncond_embedding": [120, 2048]
    }
    model = saved({"model": weightless(weights)}, tmp_path / "t2i_XL_stage2_512.pt")
    config = model.ar_config()
    assert isinstance(config, TextARConfig)
    assert (config.cls_token_num, config.num_double_stream, config.block_size) == (120, 0, 1024)
    assert "null caption" in model.dropped["cls_embedding.uncond_embedding"]
    model.ar()


@pytest.mark.parametrize("size", ["LlamaGen-S", "LlamaGen-1B"])
def test_a_gear_file_of_the_end_to_end_stage_has_all_its_parts(size, tmp_path):
    text = size not in {"LlamaGen-S"}
    ar, vq = shapes_of(build(f"{'t2i' if text else 'c2i'}-{size}")), shapes_of(build("vq-16"))
    content = {
        "vq": weightless(vq, LIVE),
        "vq_ema": weightless(vq, AVERAGED),
        "ar": weightless(ar, LIVE),
        "ema": weightless(ar, AVERAGED),
        "projectors": weightless(projector_shapes(TEXT_AR_SIZES[size]["dim"])),
        "discriminator": weightless(shapes_of(build("discriminator"))),
        "opt_vq": {"state": {}},
        "sched_ar": {},
        "steps": 400_000,
        "args": {"image_size": 256, "ar_model": size, "cls_token_num": 300 if text else 1, "text_attn": "prefix"},
    }
    if not text:
        del content["args"]["text_attn"]
    model = saved(content, tmp_path / "0400000.pt")
    assert set(model.parts) == {"vq", "vq_ema", "ar", "ema", "projectors", "discriminator"}
    assert (model.steps, model.image_size, model.layout) == (400_000, 256, "GEAR")
    assert set(model.dropped) == {"opt_vq", "sched_ar"}
    assert model.ar().output.weight[0, 0] == AVERAGED
    assert model.ar(ema=False).output.weight[0, 0] == LIVE
    assert not text or model.ar_config().text_attn == "prefix"  # type: ignore[attr-defined]
    check_pair(model.tokenizer_config, model.ar_config(), trained_with=model.trained_with, image_size=256)
