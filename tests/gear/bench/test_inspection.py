"""A model is looked at before anything runs: `harness plan`, `run` and `doctor` end with one sentence and status 2."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from huggingface_hub import constants

from gear.weights import open_model
from harness.cli import main
from tests.gear.bench.models import (
    config,
    damaged,
    in_hub_cache,
    write_encoder,
    write_model,
    write_published,
)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home of the harness, and an empty cache of the hub."""
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "home"


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good and bad models, by file name."""
    folder = tmp_path_factory.mktemp("models")
    good = write_model(folder / "c2i.pt", config())
    write_model(folder / "t2i.pt", config("t2i"))
    write_published(folder / "published.pt", config("t2i"), text_encoder="Qwen/Qwen3-1.7B", n_head=2)
    write_model(folder / "alone.pt", config(), parts=("ar",))
    write_model(folder / "tokenizer.pt", config(), parts=("vq",))
    write_model(folder / "more-codes.pt", config(codes=32), parts=("vq",))
    write_model(folder / "other-codes.pt", config(), parts=("vq",), seed=1)
    write_model(folder / "digits.pt", config(num_classes=10))
    write_model(folder / "c2i-384.pt", config(image_size=384))
    write_model(folder / "t2i-384.pt", config("t2i", image_size=384))
    write_model(folder / "c2i-128.pt", config(image_size=128))
    damaged(folder / "damaged.pt", good)
    (folder / "text.pt").write_text("# GEAR\n")
    (folder / "cut-off.pt").write_bytes(good.read_bytes()[:-1000])
    (folder / "unfinished").mkdir()
    (folder / "unfinished" / "log.jsonl").write_text("{}\n")
    write_encoder(folder / "encoder")
    write_encoder(folder / "wide-encoder", width=32)
    (folder / "empty").mkdir()
    return folder


def harness(*words: object) -> Result:
    return CliRunner().invoke(main, [*map(str, words)])


def filled(words: str, files: Path) -> list[str]:
    """Words that begin with @ are files of the fixture."""
    return [str(files / word[1:]) if word.startswith("@") else word for word in words.split()]


WRONG = {
    "--benchmark wise --ckpt @text.pt": r"text.pt cannot be read as weights",
    "--benchmark adm --ckpt @cut-off.pt": r"cut-off.pt cannot be read as weights",
    "--benchmark adm --ckpt @damaged.pt": r"damaged.pt cannot be read as weights",
    "--benchmark adm --ckpt @nothing.pt": r"nothing.pt does not exist",
    "--benchmark adm --ckpt @unfinished": r"its training is not finished",
    "--benchmark adm --ckpt @empty": r"holds no model.pt",
    "--benchmark wise --ckpt @c2i.pt": r"c2i.pt draws 1,000 classes, but wise asks for prompts",
    "--benchmark adm --ckpt @t2i.pt --text-encoder @encoder": r"t2i.pt draws prompts, but adm asks for class labels",
    "--benchmark adm --ckpt @digits.pt": r"digits.pt draws 10 classes, but adm asks for 1,000",
    "--benchmark adm --ckpt @alone.pt": r"alone.pt holds no tokenizer \(it has ar\); name its file as well \(--vq-ckpt",
    "--benchmark adm --ckpt @tokenizer.pt": r"tokenizer.pt holds no AR model",
    "--benchmark adm --ckpt @alone.pt --vq-ckpt @more-codes.pt": r"has 16 codes but the tokenizer has 32",
    "--benchmark adm --ckpt @c2i.pt --vq-ckpt @other-codes.pt": r"is not the one that .*c2i.pt was trained with",
    "--benchmark geneval --ckpt @t2i.pt": r"needs its text encoder Qwen/Qwen3-1.7B.* --text-encoder DIR",
    "--benchmark geneval --ckpt @t2i.pt --text-encoder @wide-encoder": r"features of width 32.* with width 16",
    "--benchmark geneval --ckpt @t2i.pt --text-encoder @empty": r"is no folder of a text encoder",
    "--benchmark geneval --ckpt @t2i.pt --text-encoder @nothing": r"is not a folder",
    "--benchmark geneval --ckpt @t2i.pt --text-encoder owner/name": r"hf download owner/name",
    "--benchmark adm --ckpt @c2i.pt --text-encoder @encoder": r"draws classes, not prompts; leave out --text-encoder",
    "--benchmark adm --ckpt @c2i-384.pt": r"draws 384 px, which adm would resize to 256 px.* --draw trained-size=384",
    "--benchmark dpg --ckpt @t2i-384.pt --text-encoder @encoder": r"draws 384 px, which dpg would resize to 512 px",
    "--benchmark adm --ckpt @c2i-128.pt": r"draws 128 px, but adm asks for 256 px, and images are not enlarged",
    "--benchmark adm --ckpt @c2i.pt --draw trained-size=384": r"trained for 256 px images, but 384 px were asked for",
    "--benchmark adm --ckpt @c2i.pt --draw trained-size=-1": r"give the side of the model's images in pixels",
    "--benchmark adm --ckpt hf://owner/name": r"hf download owner/name",
    "--benchmark recon --tokenizer @alone.pt": r"alone.pt holds no tokenizer",
    "--benchmark recon --tokenizer @tokenizer.pt --protocol image_size=250": r"tokens of 16 x 16 px.* image_size=240",
    "--benchmark adm --tokenizer @tokenizer.pt": r"only reconstructs, but adm needs generated images",
}


ALL = [("plan", words) for words in WRONG]
SOME = [(command, words) for command in ("run", "doctor") for words in list(WRONG)[::7]]


@pytest.mark.parametrize(("command", "words"), ALL + SOME)
def test_a_wrong_model_is_one_sentence_before_the_first_step(
    command: str, words: str, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = harness(command, *filled(words, files))
    status = 4 if "hf://" in words else 2  # the hub was not asked for a file that is wrong, it did not answer
    assert done.exit_code == status, done.output
    error = done.output[done.output.index("error: ") :]
    assert len(error.strip().splitlines()) == 1, error
    assert re.search(WRONG[words], error), error
    assert not (tmp_path / "runs").exists() or not any((tmp_path / "runs").iterdir())


RIGHT = [
    "--benchmark adm --ckpt @c2i.pt",
    "--benchmark adm --ckpt @alone.pt --vq-ckpt @tokenizer.pt",
    "--benchmark adm --ckpt @c2i-384.pt --draw trained-size=384",
    "--benchmark adm --ckpt @c2i-384.pt --protocol image_size=384",
    "--suite t2i --ckpt @t2i.pt --text-encoder @encoder",
    "--suite t2i --ckpt @published.pt --vq-ckpt @tokenizer.pt --text-encoder @encoder",
    "--suite tokenizer --tokenizer @tokenizer.pt",
]


@pytest.mark.parametrize("words", RIGHT)
def test_a_right_model_lacks_nothing_but_the_benchmarks_assets(words: str, files: Path) -> None:
    done = harness("plan", *filled(words, files))
    assert done.exit_code == 4 and "missing" in done.output, done.output


def generator_of(*words: object) -> dict[str, object]:
    done = harness("plan", "--json", *words)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)["generator"]


def test_a_hub_id_is_taken_from_the_cache_and_recorded_with_its_commit(files: Path, tmp_path: Path) -> None:
    snapshot = in_hub_cache(tmp_path / "hub", "owner/name", files / "c2i.pt")
    for given in ("hf://owner/name", "owner/name", "hf://owner/name/c2i.pt", "hf://owner/name@main"):
        described = generator_of("--benchmark", "adm", "--ckpt", given)
        assert str(described["ckpt"]).endswith(f"@{snapshot.name}"), described


def test_the_recorded_text_encoder_is_taken_from_the_cache_file_by_file(files: Path, tmp_path: Path) -> None:
    """A container sees the files that a snapshot links to only if each of them is given to it."""
    snapshot = in_hub_cache(tmp_path / "hub", "Qwen/Qwen3-1.7B", files / "encoder")
    done = harness("plan", "--json", "--benchmark", "geneval", "--ckpt", files / "t2i.pt")
    assert done.exit_code == 0, done.output
    plan = json.loads(done.stdout)
    assert plan["generator"]["text_encoder"] == f"hf://Qwen/Qwen3-1.7B@{snapshot.name}"
    draw = next(step for step in plan["steps"] if step["kind"] == "sample")
    given = {name: source["file"] for name, source in draw["inputs"].items() if name.startswith("text-encoder/")}
    assert {"text-encoder/config.json", "text-encoder/model.safetensors"} <= set(given)
    assert all(not Path(file).is_symlink() and Path(file).is_file() for file in given.values())


def test_what_was_found_is_kept_until_a_file_changes(
    files: Path, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "model.pt"
    shutil.copyfile(files / "c2i.pt", model)
    generator_of("--benchmark", "adm", "--ckpt", model)
    assert len(list((home / "models").iterdir())) == 1
    opened: list[object] = []
    monkeypatch.setattr("gear.weights.open_model", lambda source: opened.append(source) or open_model(source))
    generator_of("--benchmark", "adm", "--ckpt", model)
    assert opened == []
    shutil.copyfile(files / "digits.pt", model)
    done = harness("plan", "--benchmark", "adm", "--ckpt", model)
    assert done.exit_code == 2 and "draws 10 classes" in done.output and len(opened) == 1
