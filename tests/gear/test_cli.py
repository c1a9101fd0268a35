from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner
from PIL import Image

from gear.cli import main
from gear.cli.base import Command
from harness.contract.digest import sha256_file
from harness.contract.samples import SampleSet
from tests.gear import tiny
from tests.gear.small_models import TOKENIZERS, weights


def gear(*arguments: object) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of a gear command run in this process."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A preset file and a folder of images; three classes of noise."""
    folder = tmp_path_factory.mktemp("project")
    rng = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        (folder / "images" / name).mkdir(parents=True)
        for index in range(4):
            pixels = rng.integers(0, 256, (12, 10, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "images" / name / f"{index}.png")
    values = {**tiny.VALUES, "ar": {**tiny.VALUES["ar"], "n_layer": 2}}
    (folder / "tiny.yaml").write_text(yaml.safe_dump(values))
    return folder


def train(phase: str, project: Path, out: Path, *more: object) -> list[str]:
    command = ["train", phase, "--preset", project / "tiny.yaml", "--data-dir", project / "images", "--out", out, *more]
    return [str(word) for word in command]


def test_the_three_stages_and_sampling_follow_each_other(project: Path, tmp_path: Path) -> None:
    """8-pixel images: the teacher's 4 x 4 patches belong to the 4 x 4 tokens."""
    assert gear(*train("tokenizer", project, tmp_path / "tok"))[0] == 0
    assert gear(*train("e2e", project, tmp_path / "e2e", "--init", tmp_path / "tok"))[0] == 0
    assert gear(*train("ar", project, tmp_path / "ar", "--init", tmp_path / "e2e"))[0] == 0

    code, out, _ = gear(
        "sample", "--ckpt", tmp_path / "ar", "--per-class", 3, "--batch-size", 2, "--out", tmp_path / "s"
    )
    assert code == 0
    samples = SampleSet.open(tmp_path / "s")
    assert samples.digest in out
    assert sorted(np.asarray(samples.labels).tolist()) == [0, 0, 0, 1, 1, 1, 2, 2, 2]

    code, out, _ = gear("info", tmp_path / "ar", "--json")
    facts = json.loads(out)
    assert (facts["stage"], facts["steps"], facts["averaged_weights"]) == ("ar", 6, ["ema"])

    code, out, _ = gear("reconstruct", project / "images", "--tokenizer", tmp_path / "e2e", "--out", tmp_path / "r")
    assert code == 0
    metrics = json.loads(out)
    assert metrics["images"] == 12
    assert 0 < metrics["psnr"] < 60
    assert len(list((tmp_path / "r" / "reconstructions").glob("*.png"))) == 12


def altered(run: Path, to: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """A copy of a run's model file with another content."""
    content = torch.load(run / "model.pt", weights_only=True)
    change(content)
    torch.save(content, to)
    return to


def test_weights_that_cannot_be_the_right_ones_are_refused_in_every_command(project: Path, tmp_path: Path) -> None:
    """One NaN makes every code 0, and another tokenizer's codes mean something else: no loss and no shape shows it."""
    images = project / "images"
    assert gear(*train("tokenizer", project, tmp_path / "tok"))[0] == 0
    assert gear(*train("ar", project, tmp_path / "ar", "--tokenizer", tmp_path / "tok"))[0] == 0

    def poison(content: dict[str, Any]) -> None:
        for part in ("vq", "vq_ema"):
            if part in content:
                content[part]["encoder.conv_in.weight"][0, 0, 0, 0] = float("nan")

    def shuffle(content: dict[str, Any]) -> None:
        for part in ("vq", "vq_ema"):
            content[part]["quantize.embedding.weight"] = content[part]["quantize.embedding.weight"].flip(0)

    nan = altered(tmp_path / "tok", tmp_path / "nan.pt", poison)
    drawn = ("--per-class", 1, "--out", tmp_path / "s")
    for command in (
        train("tokenizer", project, tmp_path / "x", "--init", nan),
        train("e2e", project, tmp_path / "x", "--init", nan),
        train("ar", project, tmp_path / "x", "--tokenizer", nan),
        ("reconstruct", images, "--tokenizer", nan, "--out", tmp_path / "x"),
        ("pairs", images, "--tokenizer", nan, "--out", tmp_path / "x"),
        ("sample", "--ckpt", altered(tmp_path / "ar", tmp_path / "nan-ar.pt", poison), *drawn),
        ("sample", "--ckpt", tmp_path / "ar", "--vq-ckpt", nan, *drawn),
    ):
        code, _, error = gear(*command)
        assert (code, "Traceback" in error) == (2, False), error
        assert (
            "nan" in error and ".pt holds values that are not finite" in error and "(encoder.conv_in.weight)" in error
        )
        assert not (tmp_path / "x").exists()
    assert "unusable:" in gear("info", nan)[1] and "encoder.conv_in.weight" in gear("info", nan)[1]
    assert "not usable: vq_ema holds NaN" in gear("convert", nan, "--out", tmp_path / "converted")[2]

    other = altered(tmp_path / "tok", tmp_path / "other.pt", shuffle)
    for command in (
        ("sample", "--ckpt", tmp_path / "ar", "--vq-ckpt", other, *drawn),
        train("ar", project, tmp_path / "x", "--init", tmp_path / "ar", "--tokenizer", other),
    ):
        code, _, error = gear(*command)
        assert code == 2, error
        assert "other.pt is not the one that" in error
    assert gear("sample", "--ckpt", tmp_path / "ar", "--vq-ckpt", tmp_path / "tok", *drawn)[0] == 0


def test_info_says_whether_a_file_can_show_damage(tmp_path: Path) -> None:
    content = {"model": weights(TOKENIZERS["vq"], 1)}
    torch.save(content, tmp_path / "new.pt")
    torch.save(content, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert gear("convert", tmp_path / "new.pt", "--out", tmp_path / "hub")[0] == 0
    assert "seal: CRC-32 of every record" in gear("info", tmp_path / "new.pt")[1]
    assert "seal: 'none: a damaged tensor would go unnoticed'" in gear("info", tmp_path / "old.pt")[1]
    assert "seal: sha256 of every part, in config.json" in gear("info", tmp_path / "hub")[1]


def test_a_later_stage_takes_its_configuration_from_the_checkpoint(project: Path, tmp_path: Path) -> None:
    gear(*train("tokenizer", project, tmp_path / "tok"))
    code, _, error = gear(
        "train", "e2e", "--init", tmp_path / "tok", "--out", tmp_path / "e2e", "--set", "stages.e2e.steps=1"
    )
    assert code == 0, error
    assert json.loads((tmp_path / "e2e" / "config.json").read_text())["name"] == "tiny"


def test_a_run_resumes_with_its_images_in_another_folder_but_not_with_other_images(
    project: Path, tmp_path: Path
) -> None:
    out = tmp_path / "tok"
    assert gear(*train("tokenizer", project, out, "--set", "stages.tokenizer.steps=2"))[0] == 0
    shutil.copytree(project, tmp_path / "scratch")
    code, _, error = gear(*train("tokenizer", tmp_path / "scratch", out, "--set", "stages.tokenizer.steps=4"))
    assert code == 0, error
    (tmp_path / "scratch" / "images" / "a" / "0.png").unlink()
    code, _, error = gear(*train("tokenizer", tmp_path / "scratch", out, "--set", "stages.tokenizer.steps=6"))
    assert code == 2
    assert "holds another run (it differs in samples: 12 there, 11 now)" in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "tokenizer", "--out", "{tmp}/x"), "no configuration was given; name one with --preset"),
        (("train", "tokenizer", "--preset", "dema", "--out", "{tmp}/x"), "did you mean demo"),
        (("train", "ar", "--preset", "demo", "--out", "{tmp}/x"), "needs a trained tokenizer"),
        (("train", "tokenizer", "--preset", "imagenet-b-vq-lite0", "--out", "{tmp}/x"), "--data-dir DIR"),
        (("info", "{tmp}"), "holds no model.pt"),
        (("reconstruct", "{tmp}", "--tokenizer", "{tmp}", "--out", "{tmp}/x"), "holds no model.pt"),
    ],
)
def test_a_user_error_is_one_sentence_and_status_2(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    code, _, error = gear(*(argument.format(tmp=tmp_path) for argument in arguments))
    assert code == 2
    assert message in error
    assert "Traceback" not in error


@pytest.mark.parametrize("command", [[], ["train"], ["train", "e2e"], ["sample"], ["reconstruct"], ["data", "digits"]])
def test_help_answers_without_importing_torch(command: list[str]) -> None:
    words = repr([*command, "--help"])
    code = (
        "import sys\nfrom gear.cli import main\n"
        f"try: main({words})\nexcept SystemExit: pass\nassert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Usage:" in done.stdout


def kill_once(command: list[str], when: Callable[[], bool]) -> None:
    """Start a command and kill -9 it as soon as `when` holds; it must not have finished by then."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not when():
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


@pytest.mark.slow
def test_training_and_sampling_killed_for_real_end_like_undisturbed_ones(project: Path, tmp_path: Path) -> None:
    program = [sys.executable, "-m", "gear", "-q"]
    steps = ("--set", "stages.tokenizer.steps=60", "--set", "stages.ar.steps=4")
    for name in ("calm", "killed"):
        command = [*program, *train("tokenizer", project, tmp_path / name, *steps)]
        if name == "killed":
            for stop in ("0000006.json", "0000020.json"):
                kill_once(command, (tmp_path / name / "checkpoints" / stop).exists)
        subprocess.run(command, check=True, capture_output=True)
    assert sha256_file(tmp_path / "calm/model.pt") == sha256_file(tmp_path / "killed/model.pt")

    ar = [*program, *train("ar", project, tmp_path / "ar", "--tokenizer", tmp_path / "calm", *steps)]
    subprocess.run(ar, check=True, capture_output=True)
    digests = []
    for name in ("calm-samples", "killed-samples"):
        out = tmp_path / name
        command = [*program, "sample", "--ckpt", str(tmp_path / "ar"), "--per-class", "1200", "--batch-size", "64"]
        command += ["--out", str(out)]
        if name == "killed-samples":
            kill_once(command, lambda out=out: sum(1 for path in out.rglob("*") if path.is_file()) >= 4)  # type: ignore[misc]
            assert not (out / "samples.json").exists()
        subprocess.run(command, check=True, capture_output=True)
        digests.append(SampleSet.open(out).digest)
    assert digests[0] == digests[1]


def test_waiting_threads_sleep() -> None:
    """OpenMP reads the policy when torch is loaded; the command sets it before."""
    code = "import gear.cli, os; print(os.environ['OMP_WAIT_POLICY'])"
    environment = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "PASSIVE"


def test_a_helper_process_that_is_killed_is_one_sentence() -> None:
    @click.command(cls=Command)
    def command() -> None:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            pool.submit(os._exit, 9).result()

    result = CliRunner().invoke(command)
    assert result.exit_code == 6 and "a helper process was killed" in result.stderr
