from __future__ import annotations

import pytest

from harness.contract.errors import UserError
from harness.generators import command_generator, existing_samples, gear_generator
from harness.plan import CORE, FileInput, OutputOf
from harness.project import find_project


def test_gear_is_a_step_in_the_core_environment(toy, monkeypatch):
    monkeypatch.delenv("HARNESS_BENCHMARKS")
    model = toy.root / "run" / "model.pt"
    model.parent.mkdir()
    model.touch()
    generator = gear_generator(find_project(), model.parent, model, {"batch-size": 8, "no-ema": True})
    (step,), samples = generator.draw(toy.catalog.benchmark("toy"), OutputOf("requests-toy"))
    assert samples == OutputOf("sample-toy") and step.environment == CORE and step.resumes
    assert step.inputs["ckpt.pt"] == FileInput(model)
    assert step.argv == (
        *("{python}", "-m", "gear", "sample", "--ckpt", "{in}/ckpt.pt", "--vq-ckpt", "{in}/vq-ckpt.pt"),
        *("--batch-size", "8", "--no-ema", "--form", "npz", "--requests", "{in}/requests", "--out", "{out}"),
    )


def test_a_checkpoint_that_is_not_there_is_named(toy):
    with pytest.raises(UserError, match=r"model\.pt: does not exist"):
        gear_generator(toy.project, toy.root)


def test_the_identity_of_a_command_is_the_files_it_names(toy):
    draw = lambda: toy.command().draw(toy.catalog.benchmark("toy"), OutputOf("r"))[0][0].identity  # noqa: E731
    before = draw()
    assert list(before["files"]) == [str(toy.generator)]
    toy.edit("my_model.py", "toy", "other")
    assert draw() != before


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
