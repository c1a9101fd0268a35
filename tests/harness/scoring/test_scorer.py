import json
import os
import subprocess
import sys
from dataclasses import asdict
from types import SimpleNamespace

import pytest

from harness.contract import Metric, ScoreRecord, Unscored, parse_line, read_items
from harness.contract.errors import BadSamples, EnvironmentFailure, MissingAsset, UserError
from harness.scoring.scorer import Assets, describe_environment, run_scorer


@pytest.fixture
def command(tmp_path, make_samples, class_set):
    """The arguments of the `score` command for a real sample set and one asset."""
    samples = make_samples(class_set)
    (tmp_path / "assets" / "weights").mkdir(parents=True)
    (tmp_path / "assets" / "weights" / "w.bin").write_bytes(b"1.5")
    return ["--samples", str(samples.folder), "--assets", str(tmp_path / "assets"), "--out", str(tmp_path / "out")]


def brightness(job):
    """A real scorer: the mean of all pixels."""
    progress = job.progress(len(job.samples), "images")
    total = 0.0
    for images_u8 in job.samples.batches(4):
        total += images_u8.mean(axis=(1, 2, 3)).sum()
        progress.advance(len(images_u8))
    for entry, image_u8 in zip(job.samples.entries, job.samples.images(range(len(job.samples))), strict=True):
        job.items.append({"id": entry.id, "brightness": image_u8.mean()})
    factor = float(job.assets.file("weights").read_text())
    value = factor * total / len(job.samples)
    metric = Metric(name="brightness", value=value, higher_is_better=True, n=len(job.samples))
    return ScoreRecord(benchmark="adm", benchmark_version=1, metrics=[metric], options={"seed": 0})


def test_a_scorer_writes_a_record_with_its_provenance(command, tmp_path, class_set, capsys):
    (tmp_path / "options.json").write_text('{"precision": "float32"}')
    assert run_scorer(brightness, [*command, "--options", str(tmp_path / "options.json")]) == 0
    record = ScoreRecord.read(tmp_path / "out")
    assert 100 * 1.5 < record.metric("brightness").value < 155 * 1.5
    assert record.digests["requests"] == class_set.digest
    assert len(record.digests["samples"]) == 64
    assert record.options == {"precision": "float32", "seed": 0}
    assert record.timings_s["total"] >= 0
    assert {"python", "platform", "numpy", "pillow"} <= set(record.environment)
    assert record.environment["device"] == "cpu"
    assert record.protocol == asdict(class_set.protocol)
    assert [item["id"] for item in read_items(tmp_path / "out")] == [request.id for request in class_set]
    captured = capsys.readouterr()
    assert captured.out == ""
    assert [line.done for line in map(parse_line, captured.err.splitlines())][-1] == 10


def test_what_the_scorer_says_itself_stands(command, tmp_path):
    def score(job):
        said = {"digests": {"samples": "mine"}, "timings_s": {"total": 7.0}, "environment": {"python": "2.7"}}
        return ScoreRecord(benchmark="adm", benchmark_version=1, metrics=[], **said)

    assert run_scorer(score, command) == 0
    record = ScoreRecord.read(tmp_path / "out")
    assert (record.digests["samples"], record.timings_s, record.environment["python"]) == (
        "mine",
        {"total": 7.0},
        "2.7",
    )


class Cuda:
    """As much of PyTorch as is asked for its GPU."""

    @staticmethod
    def is_initialized():
        return True

    @staticmethod
    def get_device_name():
        return "NVIDIA H100"


def test_the_gpu_of_a_stage_is_the_device_of_the_score(command, tmp_path, monkeypatch):
    features = tmp_path / "features" / "pixels"
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "torch", SimpleNamespace(cuda=Cuda))
        stage = [*replaced(command, "--out", features), "--stage", "pixels"]
        assert run_scorer(brightness, stage, stages={"pixels": lambda job: None}) == 0
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    features = ["--features", str(tmp_path / "features")]
    assert run_scorer(brightness, [*command, *features], stages={"pixels": lambda job: None}) == 0
    assert ScoreRecord.read(tmp_path / "out").environment["device"] == "NVIDIA H100"


def test_requests_that_are_not_those_answered_are_refused_before_the_work(command, tmp_path):
    (tmp_path / "samples" / "requests.json").unlink()
    assert run_scorer(lambda job: pytest.fail("it went to work"), command) == 3


def test_unscored_items_have_an_exit_code_of_their_own(command, tmp_path):
    unscored = [Unscored(id="adm/000003", reason_class="timeout", reason="The judge did not answer in 60 s.")]
    record = ScoreRecord(benchmark="adm", benchmark_version=1, metrics=[], unscored=unscored)
    assert run_scorer(lambda job: record, command) == 5
    assert ScoreRecord.read(tmp_path / "out").unscored == unscored


class OutOfMemoryError(RuntimeError):
    """Named as PyTorch names its own."""


FAILURES = [
    (UserError("a.json: is wrong; correct it."), 2, "UserError: a.json: is wrong; correct it."),
    (BadSamples("10 images where 50,000 are needed."), 3, "BadSamples: 10 images"),
    (MissingAsset("the graph is not there."), 4, "MissingAsset: the graph"),
    (EnvironmentFailure("the judge does not answer."), 6, "EnvironmentFailure: the judge"),
    (MemoryError(), 6, "EnvironmentFailure: the environment failed: MemoryError"),
    (OutOfMemoryError("CUDA"), 6, "EnvironmentFailure: the environment failed: OutOfMemoryError: CUDA"),
    (RuntimeError("CUDA error: no kernel image is available"), 6, "no kernel image"),
    (ZeroDivisionError("a defect"), 1, "Traceback"),
]


@pytest.mark.parametrize(
    ("error", "code", "sentence"), FAILURES, ids=[type(error).__name__ for error, _, _ in FAILURES]
)
def test_a_failure_has_its_exit_code_and_leaves_no_score(command, tmp_path, capsys, error, code, sentence):
    def score(job):
        raise error

    assert run_scorer(brightness, command) == 0
    assert run_scorer(score, command) == code
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out" / "score.json").exists()  # not even that of the run before


def replaced(command, option, value):
    changed = list(command)
    changed[changed.index(option) + 1] = str(value)
    return changed


def test_wrong_arguments_are_usage_errors(command, tmp_path, capsys):
    for arguments in ([], ["--help-me"], command[:4]):
        with pytest.raises(SystemExit) as stop:
            run_scorer(brightness, arguments)
        assert stop.value.code == 2
    assert run_scorer(brightness, [*command, "--options", str(tmp_path / "absent.json")]) == 2
    (tmp_path / "list.json").write_text("[]")
    assert run_scorer(brightness, [*command, "--options", str(tmp_path / "list.json")]) == 2
    assert "list.json: holds a list, not a JSON object of options" in capsys.readouterr().err


def test_samples_and_assets_that_are_missing_have_their_exit_codes(command, tmp_path):
    assert run_scorer(brightness, replaced(command, "--samples", tmp_path / "absent")) == 3
    assert run_scorer(brightness, replaced(command, "--assets", tmp_path / "absent")) == 4
    (tmp_path / "assets" / "weights" / "w.bin").unlink()
    assert run_scorer(brightness, command) == 4


def test_an_output_folder_that_cannot_be_made_is_a_usage_error(command, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert run_scorer(brightness, replaced(command, "--out", tmp_path / "file" / "out")) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_an_asset_is_a_folder_and_a_missing_one_says_how_to_get_it(tmp_path):
    assets = Assets(tmp_path)
    with pytest.raises(MissingAsset, match="Fetch it: harness assets pull clip"):
        assets.path("clip")
    (tmp_path / "clip").mkdir()
    assert assets.path("clip") == tmp_path / "clip"
    with pytest.raises(MissingAsset, match="has 0 files where one is expected"):
        assets.file("clip")
    for name in ("a.bin", "b.bin", ".hidden"):
        (tmp_path / "clip" / name).touch()
    with pytest.raises(MissingAsset, match="has 2 files"):
        assets.file("clip")
    assert assets.file("clip", "a.bin") == tmp_path / "clip" / "a.bin"
    with pytest.raises(MissingAsset, match=r"c\.bin: is missing from the asset 'clip'"):
        assets.file("clip", "c.bin")
    with pytest.raises(UserError, match=r"'\.\.' part"):
        assets.path("../clip")


def test_packages_are_described_where_installed():
    found = describe_environment(["hypothesis", "no-such-package"])
    assert found["hypothesis"][0].isdigit()
    assert found["no-such-package"] == "not installed"


SCRIPT = """
from harness.contract import Metric, ScoreRecord
from harness.scoring.scorer import run_scorer

def score(job):
    return ScoreRecord(benchmark="adm", benchmark_version=1, metrics=[Metric(name="n", value=len(job.samples),
                       higher_is_better=True, n=len(job.samples))])

if __name__ == "__main__":
    raise SystemExit(run_scorer(score))
"""


def test_a_scorer_is_a_command(command, tmp_path):
    (tmp_path / "scorer.py").write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    script = [sys.executable, str(tmp_path / "scorer.py"), *command]
    finished = subprocess.run(script, check=False, capture_output=True, text=True, env=environment)
    assert (finished.returncode, finished.stdout) == (0, ""), finished.stderr
    assert json.loads((tmp_path / "out" / "score.json").read_text())["metrics"][0]["value"] == 10
