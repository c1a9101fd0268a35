"""GEAR's generators in the harness: the steps they make of a model or a tokenizer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gear.bench.environment import CORE, gear_code_digest
from gear.convert import to_hub
from gear.weights import open_model
from harness.catalog.project import Project, find_project
from harness.contract.errors import UserError
from harness.planning.generators import DrawContext, choose_generator
from harness.planning.steps import FileInput, Generator, OutputOf, Step
from tests.gear import tiny, tiny_text
from tests.gear.bench.models import write_encoder, write_model


def drawing(**options: Any) -> Generator:
    """The generator that these options of `harness run` choose."""
    return choose_generator(options, DrawContext(project=find_project()))


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path / "home"))


def steps(generator: Generator, toy: Any) -> list[Step]:
    return generator.draw(toy.catalog.benchmark("toy"), OutputOf("requests-toy"))[0]


def test_gear_is_a_step_in_the_core_environment(toy):
    model = write_model(toy.root / "run" / "model.pt", tiny_text.config(tiny.config()))
    encoder = write_encoder(toy.root / "encoder", tiny_text.TEXT.feature_dim)
    benchmark = replace(toy.catalog.benchmark("toy"), condition="text")
    options = {"ema": "true", "trained-size": "8"}
    generator = drawing(ckpt=model.parent, vq_ckpt=model, text_encoder=encoder, draw=options)
    (step,), samples = generator.draw(benchmark, OutputOf("requests-toy"))
    assert samples == OutputOf("sample-toy") and step.environment == CORE and step.resumes
    assert step.inputs["model.pt"] == step.inputs["vq-ckpt.pt"] == FileInput(model)
    assert step.inputs["text-encoder"] == FileInput(encoder)
    assert step.argv == (
        *("{python}", "-m", "gear", "sample", "--ckpt", "{in}/model.pt", "--vq-ckpt", "{in}/vq-ckpt.pt"),
        *("--text-encoder", "{in}/text-encoder", "--ema", "--trained-size", "8"),
        *("--form", "npz", "--requests", "{in}/requests", "--out", "{out}"),
    )


def test_a_published_model_keeps_the_file_name_that_gives_its_size(toy):
    write_model(toy.root / "c2i_B_256.pt", tiny.config())
    (step,) = steps(drawing(ckpt=toy.root / "c2i_B_256.pt"), toy)
    assert step.argv[4:6] == ("--ckpt", "{in}/c2i_B_256.pt")


def test_a_converted_folder_is_a_model(toy):
    folder = toy.root / "gear-b"
    to_hub(open_model(write_model(toy.root / "model.pt", tiny.config())), folder)
    (step,) = steps(drawing(ckpt=folder), toy)
    assert step.inputs["model-gear-b"] == FileInput(folder) and step.argv[5] == "{in}/model-gear-b"


@pytest.mark.parametrize(
    ("name", "value", "sentence"), [("cfg-scale", "2", "no option named 'cfg-scale'"), ("ema", "no", "true")]
)
def test_an_unknown_drawing_option_is_refused(toy, name: str, value: str, sentence: str):
    write_model(toy.root / "model.pt", tiny.config())
    with pytest.raises(UserError, match=sentence):
        drawing(ckpt=toy.root, draw={name: value})


def test_a_missing_checkpoint_is_named(toy):
    with pytest.raises(UserError, match=r"holds no model\.pt"):
        drawing(ckpt=toy.root)


def test_a_checkpoint_in_a_missing_folder_is_named(toy):
    with pytest.raises(UserError, match=r"nothing\.pt does not exist"):
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
