"""External files: found where their own tools put them, and never fetched."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import constants

from gear.assets import fetch_command, find_asset
from harness.contract.errors import MissingAsset, UserError

WANTS = {"purpose": "the LPIPS loss", "setting": "perceptual.vgg_weights"}
WEB = "https://download.pytorch.org/models/vgg16-397923af.pth"


def test_a_path_is_taken_as_it_is(tmp_path: Path) -> None:
    assert find_asset(str(tmp_path), **WANTS) == tmp_path
    with pytest.raises(MissingAsset, match=r"LPIPS loss needs .*/vgg\.pth, which does not exist"):
        find_asset(str(tmp_path / "vgg.pth"), **WANTS)


def test_the_command_in_the_message_puts_the_file_where_it_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(MissingAsset, match=r"perceptual\.vgg_weights=PATH") as error:
        find_asset(WEB, **WANTS)
    command = fetch_command(WEB)
    assert command in str(error.value)
    target = Path(command.split(" -o ")[1].split()[0])
    target.parent.mkdir(parents=True)
    target.write_bytes(b"x")
    assert find_asset(WEB, **WANTS) == target


def test_a_hub_file_is_found_in_the_hub_clients_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = "hf://owner/model/folder/weights.pt"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(MissingAsset, match=r"hf download owner/model folder/weights\.pt"):
        find_asset(source, **WANTS)
    snapshot = tmp_path / "models--owner--model" / "snapshots" / "0123"
    (snapshot / "folder").mkdir(parents=True)
    (snapshot / "folder" / "weights.pt").write_bytes(b"x")
    (tmp_path / "models--owner--model" / "refs").mkdir()
    (tmp_path / "models--owner--model" / "refs" / "main").write_text("0123")
    assert find_asset(source, **WANTS) == snapshot / "folder" / "weights.pt"


@pytest.mark.parametrize("source", ["hf://owner", "hf://owner/model", "hf:///model/x.pt"])
def test_a_hub_address_without_a_file_is_refused(source: str) -> None:
    with pytest.raises(UserError, match="write hf://owner/name/file"):
        find_asset(source, **WANTS)


def test_pytorchs_cache_is_where_pytorch_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    for variables in ({}, {"XDG_CACHE_HOME": "/cache"}, {"TORCH_HOME": "/torch", "XDG_CACHE_HOME": "/cache"}):
        for name in ("XDG_CACHE_HOME", "TORCH_HOME"):
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        assert fetch_command(WEB).split(" -o ")[1].startswith(torch.hub.get_dir() + "/checkpoints/")
