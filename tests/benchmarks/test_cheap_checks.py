"""What is wrong with a sample set is said before a network is loaded: by the stage that would work on it for hours."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from benchmarks.adm import scorer as adm
from benchmarks.coco import scorer as coco
from benchmarks.gpic import scorer as gpic
from harness.catalog.benchmarks import Catalog
from harness.catalog.project import find_project
from harness.contract.adopt import sample_set_from_npz
from harness.contract.errors import BadSamples
from harness.contract.requests import Prompt, SamplingProtocol, prompt_requests
from harness.contract.samples import SampleSet
from harness.planning.generators import existing_samples
from harness.planning.make import RunSpec, make_plan
from harness.scoring.scorer import Assets, FeatureJob

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
STAGES: dict[str, Callable[[FeatureJob[SampleSet]], None]] = {
    "adm": adm.sample_features,
    "coco": coco.sample_features,
    "gpic": gpic.sample_features,
}


def noise(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)


def repeated(count: int) -> np.ndarray:
    images_u8 = noise(count)
    images_u8[1] = images_u8[0]
    return images_u8


WRONG = {
    "one image": (noise(1), "holds 1 images"),
    "the same image": (np.repeat(noise(1), 6, axis=0), "all 6 images are the same"),
    "black ones": (np.concatenate([noise(4), np.zeros((1, 8, 8, 3), np.uint8)]), "flat grey or black"),
    "repeated ones": (repeated(6), "repeat another one"),
}


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """To load one, or to take an asset from this folder, is to be too late."""
    monkeypatch.setitem(sys.modules, "benchmarks.adm.inception_graph", None)  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "benchmarks.gpic.dinov2", None)  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "harness.scoring.networks.inception", None)  # type: ignore[arg-type]


def job(folder: Path, images_u8: np.ndarray, assets: Path | None = None, **given: Any) -> FeatureJob[SampleSet]:
    np.savez(folder / "drawn.npz", arr_0=images_u8)
    samples = sample_set_from_npz(folder / "drawn.npz", folder / "samples", **given)
    return FeatureJob(assets=Assets(assets or folder), out=folder, options={}, given=samples)


@pytest.mark.parametrize("name", STAGES)
@pytest.mark.parametrize(("images_u8", "sentence"), WRONG.values(), ids=WRONG)
def test_a_stage_refuses_what_is_no_set_of_drawn_images(
    tmp_path: Path, name: str, images_u8: np.ndarray, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(BadSamples, match=sentence):
        STAGES[name](job(tmp_path, images_u8))
    assert "progress" not in capsys.readouterr().err  # the first line of it lets the work on the reference begin


def test_adm_refuses_gfid_of_reconstructions_in_the_stage(tmp_path: Path) -> None:
    with pytest.raises(BadSamples, match="gFID is for drawn images"):
        adm.sample_features(job(tmp_path, noise(6), generator={"name": "vq", "kind": "reconstructions"}))


def test_coco_refuses_captions_of_another_data_set_in_the_stage(tmp_path: Path) -> None:
    prompts = [Prompt(item=f"{index:06d}", text="something else") for index in range(6)]
    requests = prompt_requests("coco", 1, SamplingProtocol(image_size=8), prompts=prompts, layout="{index:06d}.png")
    with pytest.raises(BadSamples, match="not the first 6 of the selection"):
        coco.sample_features(job(tmp_path, noise(6), BENCHMARKS / "coco/check/assets", requests=requests))


@pytest.mark.parametrize("name", ["adm", "coco"])
def test_work_on_the_reference_comes_after_the_checks_of_the_samples_and_does_not_depend_on_them(
    tmp_path: Path, name: str
) -> None:
    np.savez(tmp_path / "drawn.npz", arr_0=noise(2))
    samples = sample_set_from_npz(tmp_path / "drawn.npz", tmp_path / "samples").folder
    plan = make_plan(RunSpec(benchmarks=(name,), generator=existing_samples(samples)), Catalog.load(find_project()))
    reference = plan.step(f"features-{name}-reference")
    assert reference.after == (f"features-{name}-samples",)
    assert reference.needs == () and "samples" not in reference.inputs


@pytest.mark.parametrize("name", STAGES)
def test_the_samples_come_first_and_are_given_what_the_checks_read(name: str) -> None:
    first = yaml.safe_load((BENCHMARKS / name / "benchmark.yaml").read_text())["scorer"]["stages"][0]
    assert first["samples"]
    read = {"adm": {"measure", "samples_are"}, "coco": {"num_samples", "selection_seed"}, "gpic": set[str]()}[name]
    assert {"duplicates", *read} <= set(first["options"])
    assert name != "coco" or coco.DATASET in first["assets"]
