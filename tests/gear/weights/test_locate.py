"""Files, folders and hub ids; the hub is its local cache here, laid out as the client lays it out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from gear.convert import to_hub
from gear.weights import describe, load_ar, load_tokenizer, open_model
from gear.weights.locate import locate
from harness.contract.errors import MissingAsset, UserError
from tests.gear.small_models import TOKENIZERS, gear_content, preset, weights

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def content() -> dict[str, Any]:
    """A file of the reference's end-to-end stage."""
    return gear_content()


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache of the hub client, and no network."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def repository(cache: Path, repo: str, revision: str = "main") -> Path:
    """The snapshot folder of a repository in the cache; write its files there."""
    root = cache / f"models--{repo.replace('/', '--')}"
    (root / "refs").mkdir(parents=True, exist_ok=True)
    (root / "refs" / revision).write_text(COMMIT)
    snapshot = root / "snapshots" / COMMIT
    snapshot.mkdir(parents=True, exist_ok=True)
    return snapshot


def test_a_repository_of_one_file_is_that_file(cache):
    torch.save({"vq": weights(TOKENIZERS["vq"], 1)}, repository(cache, "org/vq") / "vq.pt")
    for source in ("org/vq", "hf://org/vq", "hf://org/vq@main", "hf://org/vq/vq.pt", "hf://org/vq/vq.pt@main"):
        assert load_tokenizer(source).config == TOKENIZERS["vq"]
    assert load_tokenizer("org/vq", revision="main").config == TOKENIZERS["vq"]


def test_a_repository_in_the_hub_layout_gives_the_part_that_is_asked_for(cache, content, tmp_path):
    """Only the tokenizer's files are there: nothing else of the repository is fetched for it."""
    torch.save(content, tmp_path / "gear.pt")
    snapshot = repository(cache, "org/gear", "v1")
    to_hub(open_model(tmp_path / "gear.pt", preset=preset()), snapshot)
    for name in ("ar", "ema", "vq", "projectors", "discriminator"):
        (snapshot / f"{name}.safetensors").unlink()
    tokenizer = load_tokenizer("hf://org/gear@v1")
    assert torch.equal(tokenizer.quantize.embedding.weight, content["vq_ema"]["quantize.embedding.weight"])
    with pytest.raises(MissingAsset, match=r"hf download org/gear --revision v1"):
        load_ar("hf://org/gear@v1")


def test_several_files_are_not_guessed_between(cache):
    for name in ("a.pt", "b.pt"):
        (repository(cache, "org/zoo") / name).write_bytes(b"")
    with pytest.raises(UserError, match=r"holds 2 weights files \(a.pt, b.pt\); name one, such as hf://org/zoo/a.pt"):
        open_model("hf://org/zoo")


def test_what_is_not_in_the_cache_names_the_command_that_fetches_it(cache):
    with pytest.raises(MissingAsset) as refusal:
        open_model("org/absent")
    assert "org/absent is no path here, and the hub does not give it" in str(refusal.value)
    assert str(refusal.value).endswith("hf download org/absent")


def test_the_offline_switch_of_the_hub_client_is_respected(tmp_path):
    """In a process of its own, since the client reads its environment once."""
    command = [sys.executable, "-m", "gear", "info", "hf://org/absent"]
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == MissingAsset.exit_code
    assert "hf download org/absent" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("source", ["weights/absent.pt", "a/b/c", "absent", "org/name.safetensors"])
def test_a_path_that_is_not_there_is_not_taken_for_a_hub_id(source, cache):
    with pytest.raises(UserError, match="does not exist; give a file, a folder, or a hub id"):
        locate(source)


def test_a_folder_is_its_model_file_or_its_only_weights(tmp_path):
    with pytest.raises(UserError, match=r"holds no model\.pt"):
        locate(tmp_path)
    (tmp_path / "only.ckpt").write_bytes(b"")
    assert locate(tmp_path) == tmp_path / "only.ckpt"
    (tmp_path / "model.pt").write_bytes(b"")
    (tmp_path / "config.json").write_text("{}")  # a run folder has one too
    assert locate(tmp_path) == tmp_path / "model.pt"


def test_an_unfinished_run_is_told_to_go_on(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "log.jsonl").write_text("")
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(UserError, match=r"its training is not finished \(run the same `gear train` again"):
        open_model(tmp_path)


def test_a_folder_of_somebody_elses_config_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "model.safetensors").write_bytes(b"x")
    with pytest.raises(UserError, match="is not the model card of a GEAR model"):
        describe(tmp_path)
