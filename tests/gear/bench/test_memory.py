"""The memory of a drawing step follows from the models, the precision, the tile and the number of processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from gear.bench.memory import Needs, bytes_in, needs_of_models, reconstruction_memory_gb, sampling_memory_gb
from gear.reconstruct import _BATCH
from gear.sampling.engine import _GROUP_PIXELS, TILE
from gear.weights import open_model
from harness.catalog.project import find_project
from harness.contract.requests import SamplingProtocol
from harness.planning.generators import DrawContext, choose_generator
from harness.planning.steps import OutputOf, Resources
from tests.gear import published


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Published architectures by name, as files that take no space."""
    folder = tmp_path_factory.mktemp("models")
    names = {"B": "c2i-LlamaGen-B", "XL": "c2i-LlamaGen-XL", "vq": "vq-16"}
    for short, name in names.items():
        state = published.weightless(published.shapes_of(published.build(name)))
        torch.save({"model": state}, folder / (f"c2i_{short}_256.pt" if short != "vq" else "vq_ds16_c2i.pt"))
    return {short: folder / (f"c2i_{short}_256.pt" if short != "vq" else "vq_ds16_c2i.pt") for short in names}


def needs(models: dict[str, Path], ar: str) -> Needs:
    model, tokenizer = open_model(models[ar]), open_model(models["vq"])
    return needs_of_models(model.ar_config(256), model.weights("ar"), tokenizer.weights("tokenizer"))


@pytest.fixture
def memory(models: dict[str, Path]):
    def memory(ckpt: str = "B", *, processes: int = 1, cfg: float = 1.0, size: int = 256, **options: str) -> float:
        protocol = SamplingProtocol(image_size=size, cfg_scale=cfg)
        return sampling_memory_gb(needs(models, ckpt), options, protocol, processes)

    return memory


def test_what_was_measured_fits_with_some_room(memory) -> None:
    """LlamaGen-B on a CPU took 3.5 GiB, with guidance 3.6."""
    assert 4 <= memory("B") <= 8 and 4 <= memory("B", cfg=2.0) <= 8


def test_eight_processes_take_about_eight_times_as_much_as_one(memory) -> None:
    one, eight = memory("XL", processes=1), memory("XL", processes=8)
    assert one > 10 and 6 * one < eight < 9 * one


def test_it_grows_with_the_model_and_with_images_at_once_and_not_with_half_the_precision(memory) -> None:
    assert memory("XL") > memory("B")
    assert memory("XL", cfg=2.0, tile="64") > memory("XL", tile="64") > memory("XL", tile="8")
    assert memory("XL", tile="64", dtype="bf16") < memory("XL", tile="64")


def test_the_shape_of_the_model_is_read_from_its_file(models) -> None:
    found = needs(models, "B")
    assert found.ar == 4 * 110_888_448 and found.tokenizer == 4 * 71_883_403
    assert (found.slot, found.slots) == (4 * 2 * 12 * 768, 257)


def test_a_text_encoder_counts(models, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(bytes(1 << 20))
    assert bytes_in(tmp_path) == bytes_in(tmp_path / "model.safetensors") == 1 << 20 and bytes_in(None) == 0
    protocol = SamplingProtocol(image_size=256)
    one, other = needs(models, "B"), replace(needs(models, "B"), text_encoder=8 << 30)
    assert sampling_memory_gb(other, {}, protocol, 1) > sampling_memory_gb(one, {}, protocol, 1) + 8


def test_reconstruction_is_one_process_of_a_tokenizer() -> None:
    assert reconstruction_memory_gb(290 << 20, 512) > reconstruction_memory_gb(290 << 20, 256) > 4


def test_what_is_done_at_once_is_as_the_programs_do_it() -> None:
    from gear.bench import memory

    assert _GROUP_PIXELS["cpu"] == memory._DECODED_AT_ONCE and _BATCH == memory._RECONSTRUCTED_AT_ONCE
    assert TILE["cpu"] == memory._TILE


# --- in a plan -------------------------------------------------------------------------------------------------------


def resources(toy: Any, given: Mapping[str, Any], **context: Any) -> Resources:
    generator = choose_generator(given, DrawContext(project=find_project(), **context))
    benchmark = replace(toy.catalog.benchmark("toy"), protocol=SamplingProtocol(image_size=256))
    return generator.draw(benchmark, OutputOf("requests-toy"))[0][0].resources


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """What is found about models is kept there."""
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path / "home"))


def test_the_step_of_eight_processes_may_have_what_they_need(toy, models) -> None:
    given = {"ckpt": models["XL"], "vq_ckpt": models["vq"]}
    one, eight = resources(toy, given), resources(toy, given, gpus=8)
    assert eight.gpus == 8 and eight.memory_gb > 6 * one.memory_gb > 60


def test_the_user_can_say_how_much_and_the_advice_says_so(toy, models) -> None:
    given = {"ckpt": models["B"], "vq_ckpt": models["vq"]}
    assert resources(toy, given, memory_gb=3.5).memory_gb == 3.5
    assert "--memory GB" in resources(toy, given).advice and "tile=N" in resources(toy, given).advice
    assert resources(toy, {"generator": "python my_model.py"}, memory_gb=99).memory_gb == 99
    assert resources(toy, {"generator": "python my_model.py"}).memory_gb == 8
