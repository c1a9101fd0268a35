from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
import torch

from gear.training.checkpoint import CheckpointStore, load_tensors
from harness.contract.errors import UserError


def store_with_three(folder: Path) -> CheckpointStore:
    store = CheckpointStore(folder, keep=2)
    for step in (1, 2, 3):
        store.save(step, {"steps": step, "weight": torch.full((2,), float(step))})
    return store


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    store_with_three(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "0000002.json",
        "0000002.pt",
        "0000003.json",
        "0000003.pt",
    ]


def test_milestones_are_kept_beside_the_newest(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=1, every=2)
    for step in range(1, 6):
        store.save(step, {"steps": step})
    assert sorted(path.stem for path in tmp_path.glob("*.pt")) == ["0000002", "0000004", "0000005"]


def test_a_damaged_later_checkpoint_does_not_push_out_the_one_just_written(tmp_path: Path) -> None:
    """The run went back to step 2, since 3 was incomplete, and saves step 2 again while keeping only one."""
    store = store_with_three(tmp_path)
    (tmp_path / "0000003.json").unlink()
    CheckpointStore(tmp_path, keep=1).save(2, {"steps": 2})
    found = store.newest()
    assert found is not None
    assert load_tensors(found)["steps"] == 2


def test_the_newest_is_what_a_run_continues_from(tmp_path: Path) -> None:
    found = store_with_three(tmp_path).newest()
    assert found is not None
    assert load_tensors(found)["steps"] == 3


@pytest.mark.parametrize("damage", ["flip", "truncate", "unsealed", "torn seal"])
def test_a_damaged_newest_is_reported_and_the_one_before_it_used(
    damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = store_with_three(tmp_path)
    path, seal = tmp_path / "0000003.pt", tmp_path / "0000003.json"
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif damage == "truncate":
        path.write_bytes(content[:-7])
    elif damage == "unsealed":
        seal.unlink()
    else:
        seal.write_text('{"step": 3, "sha')
    with caplog.at_level(logging.WARNING):
        found = store.newest()
    assert found is not None
    assert load_tensors(found)["steps"] == 2
    assert "0000003.pt" in caplog.text


def test_an_empty_folder_has_no_newest(tmp_path: Path) -> None:
    assert CheckpointStore(tmp_path / "none").newest() is None


def test_a_malicious_file_is_refused_without_running_it(tmp_path: Path) -> None:
    class Attack:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {tmp_path / 'pwned'}",)

    path = tmp_path / "model.pt"
    torch.save({"vq": Attack()}, path)
    with pytest.raises(UserError, match=r"model\.pt holds more than tensors"):
        load_tensors(path)
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 torn"])
def test_a_file_that_is_not_a_checkpoint_is_refused_by_name(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"model\.pt"):
        load_tensors(path)


def test_the_same_state_gives_the_same_bytes(tmp_path: Path) -> None:
    state = {"weight": torch.arange(5.0), "steps": 3}
    one = CheckpointStore(tmp_path / "a").save(3, state)
    two = CheckpointStore(tmp_path / "b").save(3, state)
    assert one.read_bytes() == two.read_bytes()
