from __future__ import annotations

import pytest

from harness.contract.errors import UserError
from harness.planning.generators import DrawContext, choose_generator, command_generator, existing_samples
from harness.planning.steps import OutputOf


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


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({}, "No generator is named; give one of --generator, --samples"),
        ({"generator": "python x.py", "samples": "x.npz"}, "Several generators are named"),
        ({"samples": "x.npz", "generator_version": "2"}, "--generator-version belongs to --generator"),
        ({"paintbrush": "x"}, "no generator option 'paintbrush'"),
    ],
)
def test_exactly_one_generator_is_chosen_with_its_own_options(toy, given, sentence):
    (toy.root / "x.npz").touch()
    with pytest.raises(UserError, match=sentence):
        choose_generator(given, DrawContext(project=toy.project))


def test_a_command_is_chosen_by_its_option(toy):
    chosen = choose_generator({"generator": "python x.py", "samples": None}, DrawContext(project=toy.project, gpus=2))
    assert chosen.describe()["command"] == "python x.py" and chosen.gpus == 2
