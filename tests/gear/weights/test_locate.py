"""Files, folders and hub ids. The hub is its local cache here, or a server on this machine for the real client."""

from __future__ import annotations

import hashlib
import http.server
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

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


def test_several_files_are_refused_instead_of_guessing(cache):
    for name in ("a.pt", "b.pt"):
        (repository(cache, "org/zoo") / name).write_bytes(b"")
    with pytest.raises(UserError, match=r"holds 2 weights files \(a.pt, b.pt\); name one, such as hf://org/zoo/a.pt"):
        open_model("hf://org/zoo")


def test_what_is_not_in_the_cache_names_the_command_that_fetches_it(cache):
    with pytest.raises(MissingAsset) as refusal:
        open_model("org/absent")
    assert "org/absent is not a path here, and the hub did not provide it" in str(refusal.value)
    assert str(refusal.value).endswith("hf download org/absent")


def test_the_offline_switch_of_the_hub_client_is_respected(tmp_path):
    """In a separate process, since the client reads its environment once."""
    command = [sys.executable, "-m", "gear", "info", "hf://org/absent"]
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == MissingAsset.exit_code
    assert "hf download org/absent" in done.stderr and "Traceback" not in done.stderr


class Hub(http.server.BaseHTTPRequestHandler):
    """The addresses of the hub that the client asks for: a repository's files, and one file."""

    files: dict[str, bytes]
    asked: list[str]

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        if self.path.startswith("/api/models/org/gear"):
            files = [{"type": "file", "path": name, "size": len(body), "oid": ""} for name, body in self.files.items()]
            self._answer(json.dumps(files if "/tree/" in self.path else {"id": "org/gear", "sha": COMMIT}).encode())
        elif (name := self.path.rpartition("/")[2]) in self.files and "/resolve/" in self.path:
            if self.command == "GET":
                self.asked.append(name)
            self._answer(self.files[name])
        else:
            self.send_error(404)

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def hub(content, tmp_path) -> Iterator[tuple[str, list[str]]]:
    """The address of a hub on this machine with one repository in our layout, and the files it was asked for."""
    torch.save(content, tmp_path / "gear.pt")
    folder = to_hub(open_model(tmp_path / "gear.pt", preset=preset()), tmp_path / "folder")
    asked: list[str] = []
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("OurHub", (Hub,), {"files": files, "asked": asked}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


def gear_with(endpoint: str, home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A gear command whose hub is at `endpoint`; the client reads its environment once, so in another process."""
    environment = {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "PATH": "/usr/bin:/bin", "HF_HUB_DISABLE_XET": "1"}
    command = [sys.executable, "-m", "gear", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)


@pytest.mark.slow
def test_of_a_repository_only_what_is_used_is_fetched_and_then_kept(hub, tmp_path):
    """The real client with a hub on this machine; after the hub is gone, fetched files can still be used."""
    endpoint, asked = hub
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    arguments = ("reconstruct", str(tmp_path / "a.png"), "--tokenizer", "hf://org/gear", "--out", str(tmp_path / "out"))
    done = gear_with(endpoint, tmp_path / "home", *arguments)
    assert done.returncode == 0, done.stderr
    assert sorted(asked) == ["config.json", "vq_ema.safetensors"]

    unreachable = "http://127.0.0.1:9"
    again = gear_with(unreachable, tmp_path / "home", *arguments)
    assert (again.returncode, again.stdout) == (0, done.stdout), again.stderr
    missing = gear_with(unreachable, tmp_path / "home", "info", "org/absent")
    assert missing.returncode == MissingAsset.exit_code
    assert "the hub did not provide it" in missing.stderr and "Traceback" not in missing.stderr


def test_a_name_beside_a_folders_others_is_a_path(cache, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "exps").mkdir()
    with pytest.raises(UserError, match="exps/nope does not exist; give a file, a folder, or a hub id"):
        locate("exps/nope")


@pytest.mark.parametrize("source", ["weights/absent.pt", "a/b/c", "absent", "org/name.safetensors"])
def test_a_missing_path_is_not_taken_for_a_hub_id(source, cache):
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


def test_for_an_unfinished_run_the_message_says_to_resume_it(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "log.jsonl").write_text("")
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(UserError, match=r"its training is not finished \(run the same `gear train` again"):
        open_model(tmp_path)


def test_a_folder_with_another_projects_config_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "model.safetensors").write_bytes(b"x")
    with pytest.raises(UserError, match="is not the model card of a GEAR model"):
        describe(tmp_path)


def test_what_operating_systems_leave_beside_weights_is_no_weights(tmp_path):
    (tmp_path / "vq.pt").write_bytes(b"x")
    (tmp_path / "._vq.pt").write_bytes(b"resource fork")
    assert locate(tmp_path) == tmp_path / "vq.pt"
