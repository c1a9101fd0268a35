"""GEAR's generators in the harness: the steps they make of a model or a tokenizer."""

from __future__ import annotations

from typing import Any

import pytest

from gear.bench.generators import CORE, gear_code_digest
from harness.catalog.project import Project, find_project
from harness.contract.errors import UserError
from harness.planning.generators import DrawContext, choose_generator
from harness.planning.steps import FileInput, Generator, OutputOf


def drawing(**options: Any) -> Generator:
    """The generator that these options of `harness run` choose."""
    return choose_generator(options, DrawContext(project=find_project()))


def test_gear_is_a_step_in_the_core_environment(toy):
    model = toy.root / "run" / "model.pt"
    model.parent.mkdir()
    model.touch()
    options = {"ema": "false", "trained-size": "384"}
    generator = drawing(ckpt=model.parent, vq_ckpt=model, text_encoder=toy.root, draw=options)
    (step,), samples = generator.draw(toy.catalog.benchmark("toy"), OutputOf("requests-toy"))
    assert samples == OutputOf("sample-toy") and step.environment == CORE and step.resumes
    assert step.inputs["model.pt"] == step.inputs["vq-ckpt.pt"] == FileInput(model)
    assert step.inputs["text-encoder"] == FileInput(toy.root.resolve())
    assert step.argv == (
        *("{python}", "-m", "gear", "sample", "--ckpt", "{in}/model.pt", "--vq-ckpt", "{in}/vq-ckpt.pt"),
        *("--text-encoder", "{in}/text-encoder", "--no-ema", "--trained-size", "384"),
        *("--form", "npz", "--requests", "{in}/requests", "--out", "{out}"),
    )


def test_a_published_model_keeps_the_file_name_that_gives_its_size(toy):
    (toy.root / "c2i_B_384.pt").touch()
    generator = drawing(ckpt=toy.root / "c2i_B_384.pt")
    (step,), _ = generator.draw(toy.catalog.benchmark("toy"), OutputOf("requests-toy"))
    assert step.argv[4:6] == ("--ckpt", "{in}/c2i_B_384.pt")


def test_a_converted_folder_is_a_model(toy):
    folder = toy.root / "gear-b"
    folder.mkdir()
    for name in ("config.json", "vq.safetensors"):
        (folder / name).touch()
    generator = drawing(ckpt=folder)
    (step,), _ = generator.draw(toy.catalog.benchmark("toy"), OutputOf("requests-toy"))
    assert step.inputs["model-gear-b"] == FileInput(folder) and step.argv[5] == "{in}/model-gear-b"


@pytest.mark.parametrize(
    ("name", "value", "sentence"), [("cfg-scale", "2", "no option named 'cfg-scale'"), ("ema", "no", "true")]
)
def test_an_unknown_drawing_option_is_refused(toy, name: str, value: str, sentence: str):
    (toy.root / "model.pt").touch()
    with pytest.raises(UserError, match=sentence):
        drawing(ckpt=toy.root, draw={name: value})


def test_a_missing_checkpoint_is_named(toy):
    with pytest.raises(UserError, match=r"holds no model\.pt"):
        drawing(ckpt=toy.root)


def test_a_checkpoint_in_a_missing_folder_is_named(toy):
    with pytest.raises(UserError, match=r"nothing\.pt: does not exist"):
        drawing(ckpt=toy.root / "nothing.pt")


def test_the_digest_of_training_covers_the_shared_networks_and_that_of_sampling_does_not(monkeypatch):
    """A teacher of the demo is one of `harness.scoring.networks`; no sample depends on them."""
    digested = []
    monkeypatch.setattr(Project, "code_digest", lambda self, names: digested.append(list(names)) or "0")
    for training in (True, False):
        gear_code_digest(find_project(), training=training)
    with_training, sampling = digested
    assert "harness/scoring/networks/lite0.py" in with_training and "gear/training/loop.py" in with_training
    assert not [name for name in sampling if name.startswith(("harness/scoring", "gear/training", "gear/bench"))]
    assert "gear/sampling/rollout.py" in sampling and set(sampling) < set(with_training)
