"""The package as others meet it: what it imports, what it documents, and its commands."""

import dataclasses
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

import harness.contract
from harness.contract import SampleSet, SamplingProtocol, ScoreRecord
from harness.contract.__main__ import main
from scripts.benches.contract_files import STEPS, run_step

IMPORTS = """
import sys
before = set(sys.modules)
import harness.contract
at_once = set(sys.modules) - before
for name in harness.contract.__all__:
    getattr(harness.contract, name)
assert not any(name.split(".")[0] in ("numpy", "PIL") for name in at_once), at_once
print("\\n".join(sorted({name.split(".")[0] for name in set(sys.modules) - before})))
"""


def test_numpy_and_pillow_are_all_it_imports_and_only_when_they_are_used():
    printed = subprocess.run([sys.executable, "-c", IMPORTS], check=True, capture_output=True, text=True).stdout
    foreign = {name for name in printed.split() if name not in sys.stdlib_module_names and not name.startswith("_")}
    assert foreign - {"numpy", "PIL", "harness", "defusedxml", "cython_runtime"} == set()


def test_every_field_of_the_files_is_documented(make_samples, class_set, tmp_path):
    folder = make_samples(class_set).folder
    ScoreRecord(benchmark="adm", benchmark_version=1, metrics=[]).write(folder)
    heads = [json.loads((folder / name).read_text()) for name in ("requests.json", "samples.json", "score.json")]
    lines = [json.loads((folder / name).read_text().splitlines()[0]) for name in ("requests.jsonl", "index.jsonl")]
    documentation = harness.contract.__doc__
    assert all(field in documentation for row in (*heads, *lines) for field in row)
    assert all(field.metadata["help"] for field in dataclasses.fields(SamplingProtocol))  # `protocol` has these


def test_every_public_name_exists():
    assert all(hasattr(harness.contract, name) for name in harness.contract.__all__)


def test_validate_tells_what_is_there(make_samples, class_set, tmp_path, capsys):
    samples = make_samples(class_set)
    class_set.write(tmp_path / "requests")
    ScoreRecord(benchmark="adm", benchmark_version=1, metrics=[]).write(tmp_path / "score")
    for folder, sentence in (
        (samples.folder, f"sample set as npz, 10 images of 8 px, digest {samples.digest}"),
        (tmp_path / "requests", f"request set of adm, 10 images, digest {class_set.digest}"),
        (tmp_path / "score", "score record of adm, 0 metrics"),
    ):
        assert main(["validate", str(folder)]) == 0
        assert sentence in capsys.readouterr().out


def test_validate_fails_in_one_sentence(make_samples, class_set, tmp_path, capsys):
    samples = make_samples(class_set)
    np.savez(samples.npz_path, np.zeros((10, 8, 8, 3), np.uint8), labels=np.array(class_set.labels))
    assert main(["validate", str(samples.folder)]) == 3
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    assert "samples.npz" in captured.err
    assert main(["validate", str(tmp_path / "absent")]) == 2


def test_adopt_and_convert_by_hand(tmp_path, class_set, capsys):
    class_set.write(tmp_path / "requests")
    images_u8 = np.random.default_rng(0).integers(0, 256, (10, 8, 8, 3), np.uint8)
    np.savez(tmp_path / "theirs.npz", images_u8)
    folders = [str(tmp_path / name) for name in ("theirs.npz", "a", "b", "c", "requests")]
    assert main(["adopt", folders[0], folders[1], "--requests", folders[4]]) == 0
    assert main(["convert", folders[1], folders[2], "--form", "png"]) == 0
    assert main(["adopt", f"{folders[2]}/images", folders[3]]) == 0
    digests = {SampleSet.open(folder).digest for folder in folders[1:4]}
    assert len(digests) == 1
    assert digests.pop() in capsys.readouterr().out


def test_what_the_images_are_is_recorded_by_hand_and_survives_another_form(tmp_path, capsys):
    np.savez(tmp_path / "theirs.npz", np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8))
    theirs, out, png, again = (str(tmp_path / name) for name in ("theirs.npz", "out", "png", "again"))
    assert main(["adopt", theirs, out, "--kind", "reconstructions"]) == 0
    assert main(["convert", out, png, "--form", "png"]) == 0
    assert [SampleSet.open(folder).kind for folder in (out, png)] == ["reconstructions", "reconstructions"]
    assert main(["adopt", png, again, "--kind", "generated"]) == 2
    assert "is already a sample set" in capsys.readouterr().err
    assert main(["adopt", f"{png}/images", again, "--kind", "generated"]) == 0
    assert SampleSet.open(again).kind == "generated"


@pytest.mark.parametrize("options", [["--kind", "drawn"], ["--layout", "layout.json", "--kind", "generated"]])
def test_an_unknown_kind_is_refused_and_so_is_one_of_images_that_answer_prompts(tmp_path, capsys, options: list[str]):
    with pytest.raises(SystemExit, match="2"):
        main(["adopt", str(tmp_path), str(tmp_path / "out"), *options])
    assert "--kind: " in capsys.readouterr().err


def test_the_command_explains_itself():
    command = [sys.executable, "-m", "harness.contract", "--help"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert all(word in printed for word in ("validate", "adopt", "convert"))


@pytest.mark.slow
def test_the_memory_does_not_grow_with_the_number_of_images(tmp_path):
    """Every operation on four times the images needs the same memory, to within a few MB of index and one batch.

    On a busy machine a thread may still hold an image, and so the batch before, when the next one is read.
    """
    batch_mb = 32 * 512 * 512 * 3 / 1e6
    with tempfile.TemporaryDirectory(dir=tmp_path) as folder:  # 2 GB, given back at once
        for step in STEPS:
            small = run_step(step, Path(folder) / "small", count=128, size=512)
            large = run_step(step, Path(folder) / "large", count=512, size=512)
            assert large[1] < small[1] + batch_mb + 16, (step, small, large)
            assert large[1] < 300, (step, large)
