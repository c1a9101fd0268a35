from __future__ import annotations

import pytest

from harness.catalog.project import find_project
from harness.contract.errors import UserError
from harness.planning.generators import command_generator, existing_samples, gear_generator
from harness.planning.steps import CORE, FileInput, OutputOf


def test_gear_is_a_step_in_the_core_environment(toy, monkeypatch):
    monkeypatch.delenv("HARNESS_BENCHMARKS")
    model = toy.root / "run" / "model.pt"
    model.parent.mkdir()
    model.touch()
    options = {"ema": "false", "trained-size": "384"}
    generator = gear_generator(find_project(), model.parent, model, text_encoder=toy.root, options=options)
    (step,), samples = generator.draw(toy.catalog.benchmark("toy"), OutputOf("requests-toy"))
    assert samples == OutputOf("sample-toy") and step.environment == CORE and step.resumes
    assert step.inputs["model.pt"] == step.inputs["vq-ckpt.pt"] == FileInput(model)
    assert step.inputs["text-encoder"] == FileInput(toy.root.resolve())
    assert step.argv == (
        *("{python}", "-m", "gear", "sample", "--ckpt", "{in}/model.pt", "--vq-ckpt", "{in}/vq-ckpt.pt"),
        *("--text-encoder", "{in}/text-encoder", "--no-ema", "--trained-size", "384"),
        *("--form", "npz", "--requests", "{in}/requests", "--out", "{out}"),
    )


def test_a_published_model_keeps_the_name_that_tells_its_size(toy):
    (toy.root / "c2i_B_384.pt").touch()
    generator = gear_generator(find_project(), toy.root / "c2i_B_384.pt")
    (step,), _ = generator.draw(toy.catalog.benchmark("toy"), OutputOf("requests-toy"))
    assert step.argv[4:6] == ("--ckpt", "{in}/c2i_B_384.pt")


def test_a_converted_folder_is_a_model(toy):
    folder = toy.root / "gear-b"
    folder.mkdir()
    for name in ("config.json", "vq.safetensors"):
        (folder / name).touch()
    generator = gear_generator(find_project(), folder)
    (step,), _ = generator.draw(toy.catalog.benchmark("toy"), OutputOf("requests-toy"))
    assert step.inputs["model-gear-b"] == FileInput(folder) and step.argv[5] == "{in}/model-gear-b"


@pytest.mark.parametrize(("name", "value", "sentence"), [("cfg-scale", "2", "no such option"), ("ema", "no", "true")])
def test_an_option_of_drawing_that_is_not_known_is_refused(toy, name: str, value: str, sentence: str):
    (toy.root / "model.pt").touch()
    with pytest.raises(UserError, match=sentence):
        gear_generator(find_project(), toy.root, options={name: value})


def test_a_checkpoint_that_is_not_there_is_named(toy):
    with pytest.raises(UserError, match=r"model\.pt: does not exist"):
        gear_generator(toy.project, toy.root)


def test_the_identity_of_a_command_is_the_files_it_names(toy):
    draw = lambda: toy.command().draw(toy.catalog.benchmark("toy"), OutputOf("r"))[0][0].identity  # noqa: E731
    before = draw()
    assert list(before["files"]) == [str(toy.generator)]
    toy.edit("my_model.py", "toy", "other")
    assert draw() != before


def test_the_identity_of_a_command_holds_the_models_in_the_folders_it_names(toy):
    """`--model DIR`, and `--ckpt=FILE`; not what a program leaves in a folder of its own."""
    folder = toy.root / "model"
    (folder / "unet").mkdir(parents=True)
    (folder / "unet" / "weights.safetensors").write_text("1")
    (folder / "state.json").write_text("1")
    (toy.root / "w.pt").write_text("1")

    def identity() -> dict[str, object]:
        command = command_generator("python -m model --model model --ckpt=w.pt . --root=..", cwd=toy.root)
        return command.draw(toy.catalog.benchmark("toy"), OutputOf("r"))[0][0].identity

    before = identity()
    assert list(before["files"]) == ["model/unet/weights.safetensors", "w.pt"]
    (folder / "state.json").write_text("2")
    assert identity() == before
    (folder / "unet" / "weights.safetensors").write_text("2")
    assert identity() != before


def test_a_version_stands_for_what_a_command_imports(toy):
    steps = [
        command_generator("python -m model", version=version).draw(toy.catalog.benchmark("toy"), OutputOf("r"))[0][0]
        for version in ("1", "2")
    ]
    assert steps[0].key({"requests": "0"}, None) != steps[1].key({"requests": "0"}, None)


@pytest.mark.parametrize(("line", "sentence"), [("", "is empty"), ("python 'x", "close the quote")])
def test_a_command_that_cannot_be_read_is_refused(line: str, sentence: str):
    with pytest.raises(UserError, match=sentence):
        command_generator(line)


def test_samples_that_are_not_there_are_named(tmp_path):
    with pytest.raises(UserError, match=r"nothing\.npz"):
        existing_samples(tmp_path / "nothing.npz")
