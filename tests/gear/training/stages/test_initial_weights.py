"""Where a stage starts from: files of earlier stages, and tokenizers as others publish them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from gear.config import RunConfig
from gear.losses.discriminator import PatchDiscriminator
from gear.losses.head import LossHead
from gear.tokenizers import Tokenizer, build_tokenizer
from gear.training.stages.build import build_stage
from gear.training.stages.initial_weights import (
    frozen_tokenizer,
    init_tokenizer,
    published_initial_weights,
    require_discriminator,
)
from gear.weights import open_model
from harness.contract.errors import MissingAsset, UserError
from tests.gear import tiny

State = dict[str, torch.Tensor]


def tokenizer(seed: int) -> Tokenizer:
    torch.manual_seed(seed)
    return build_tokenizer(tiny.config().tokenizer)


def losses(seed: int) -> LossHead:
    torch.manual_seed(seed)
    return LossHead(tiny.config().loss, PatchDiscriminator(ndf=4, n_layers=1), None)


def published(layout: str) -> dict[str, Any]:
    """A file whose wanted tokenizer is that of seed 1 and any other that of seed 2."""
    wanted, other = tokenizer(1).state_dict(), tokenizer(2).state_dict()
    match layout:
        case "LlamaGen":
            return {"model": {**wanted, "quantize.codebook_used": torch.zeros(8)}, "ema": other, "steps": 3}
        case "Lightning":
            shadows = {f"model_ema.{key.replace('.', '')}": value for key, value in wanted.items()}
            return {"state_dict": {**other, **shadows, "model_ema.num_updates": torch.tensor(3)}, "epoch": 1}
        case "GEAR":
            return {"vq": wanted, "vq_ema": other, "discriminator": losses(1).discriminator.state_dict(), "stage": 0}
        case "GEAR, averaged only":
            return {"vq_ema": wanted}
    raise AssertionError(layout)


def started(content: dict[str, Any], path: Path) -> tuple[Tokenizer, LossHead]:
    torch.save(content, path)
    fresh, head = tokenizer(3), losses(3)
    init_tokenizer(fresh, head, open_model(path), tiny.config())
    return fresh, head


@pytest.mark.parametrize("layout", ["LlamaGen", "GEAR", "GEAR, averaged only"])
def test_a_warm_start_takes_the_live_weights_of_every_public_layout(layout: str, tmp_path: Path) -> None:
    fresh, head = started(published(layout), tmp_path / "tokenizer.pt")
    for key, value in tokenizer(1).state_dict().items():
        assert torch.equal(fresh.state_dict()[key], value), key
    critic = losses(1 if layout == "GEAR" else 3).discriminator.state_dict()
    for key, value in head.discriminator.state_dict().items():
        assert torch.equal(value, critic[key]), f"{key}: recovered where the file has one, else as it was"


def test_a_lightning_file_is_read_at_its_average(tmp_path: Path) -> None:
    """IBQ's layout: the one with a codebook among its tensors."""
    fresh, _ = started(published("Lightning"), tmp_path / "tokenizer.ckpt")
    want = tokenizer(1).state_dict()
    assert all(torch.equal(value, want[key]) for key, value in fresh.state_dict().items())


def test_the_average_of_a_stage_begins_at_its_warm_start(tmp_path: Path) -> None:
    torch.save(published("GEAR"), tmp_path / "stage0.pt")
    values = {**tiny.VALUES, "data": {**tiny.VALUES["data"], "data_dir": str(images(tmp_path))}}
    stage, _ = build_stage(
        "tokenizer", RunConfig.from_dict(values), torch.device("cpu"), init=open_model(tmp_path / "stage0.pt")
    )
    live, average = stage.modules["vq"].state_dict(), stage.averages["vq_ema"].module.state_dict()
    assert all(torch.equal(live[key], average[key]) for key in live)
    assert torch.equal(live["decoder.conv_out.weight"], tokenizer(1).state_dict()["decoder.conv_out.weight"])


def images(folder: Path) -> Path:
    from PIL import Image

    (folder / "images" / "a").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(folder / "images" / "a" / "0.png")
    return folder / "images"


def test_gear_does_not_begin_with_an_untrained_critic(tmp_path: Path) -> None:
    torch.save(published("LlamaGen"), tmp_path / "tokenizer.pt")
    init = open_model(tmp_path / "tokenizer.pt")
    with pytest.raises(UserError, match=r"tokenizer\.pt holds none; warm it up first"):
        build_stage("e2e", tiny.config(), torch.device("cpu"), init=init)
    without = {**tiny.VALUES, "loss": {**tiny.VALUES.get("loss", {}), "discriminator_weight": 0.0}}
    require_discriminator(init, RunConfig.from_dict(without))


def test_another_tokenizer_is_refused_with_the_field_that_differs(tmp_path: Path) -> None:
    torch.save(published("GEAR"), tmp_path / "stage0.pt")
    values = {**tiny.VALUES, "tokenizer": {**tiny.VALUES["tokenizer"], "codebook_embed_dim": 8}}
    with pytest.raises(UserError, match=r"stage0\.pt has codebook_embed_dim = 4 but the configuration says 8"):
        frozen_tokenizer("ar", RunConfig.from_dict(values), open_model(tmp_path / "stage0.pt"))


def test_a_stage_without_a_trained_tokenizer_says_what_to_give() -> None:
    with pytest.raises(UserError, match=r"stage ar needs a trained tokenizer; .*--tokenizer SOURCE"):
        frozen_tokenizer("ar", tiny.config(), None)


def test_the_file_that_a_preset_names_is_opened_and_when_missing_explained(tmp_path: Path) -> None:
    path = tmp_path / "vq_ds16_c2i.pt"
    config = tiny.config(init=str(path))
    with pytest.raises(MissingAsset, match=r"stage tokenizer without --init needs .*; correct stages\.tokenizer\.init"):
        published_initial_weights("tokenizer", config)
    torch.save(published("LlamaGen"), path)
    start = published_initial_weights("tokenizer", config)
    assert start is not None
    assert start.has("tokenizer")
    assert published_initial_weights("tokenizer", tiny.config()) is None
