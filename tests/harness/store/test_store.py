"""The store believes only what was renamed into it whole."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import pytest

from harness.contract.digest import sha256_file
from harness.contract.errors import EnvironmentFailure
from harness.store.store import Store, lease

KEY = "a" * 64


def fill(store: Store, text: str = "x") -> Path:
    with store.working("train", KEY) as work:
        work.output.mkdir(parents=True, exist_ok=True)
        (work.output / "model.txt").write_text(text)
        return store.commit(work, "train", KEY, digest="d", meta={"exit_code": 0}).path


def test_what_was_committed_is_found_with_its_meta(tmp_path):
    store = Store(tmp_path)
    fill(store)
    entry = store.find("train", KEY)
    assert entry and entry.digest == "d" and entry.meta == {"exit_code": 0}
    assert (entry.output / "model.txt").read_text() == "x"
    assert not any((tmp_path / "work").iterdir())
    assert [lease.current_holder(folder) for folder in (tmp_path / "leases").iterdir()] == [None]


def test_unfinished_work_is_kept_and_not_found(tmp_path):
    store = Store(tmp_path)

    def die_half_way() -> None:
        with store.working("train", KEY) as work:
            work.output.mkdir(parents=True)
            (work.output / "half").touch()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        die_half_way()
    assert store.find("train", KEY) is None and store.has_unfinished("train", KEY)
    with store.working("train", KEY) as work:
        assert (work.output / "half").exists()


def test_another_kind_or_key_is_not_found(tmp_path):
    store = Store(tmp_path)
    fill(store)
    assert store.find("score", KEY) is None and store.find("train", "b" * 64) is None


def damage_truncate(path: Path) -> None:
    (path / "output" / "model.txt").write_text("")


def damage_remove(path: Path) -> None:
    (path / "output" / "model.txt").unlink()


def damage_add(path: Path) -> None:
    (path / "output" / "stray").touch()


def damage_entry(path: Path) -> None:
    (path / "entry.json").write_text('{"key": ')


def damage_no_output(path: Path) -> None:
    (path / "output" / "model.txt").unlink()
    (path / "output").rmdir()


@pytest.mark.parametrize("damage", [damage_truncate, damage_remove, damage_add, damage_entry, damage_no_output])
def test_a_damaged_entry_counts_as_not_there_and_can_be_replaced(tmp_path, damage):
    store = Store(tmp_path)
    damage(fill(store))
    assert store.find("train", KEY) is None
    fill(store)
    assert store.find("train", KEY)


def damage_content(path: Path) -> None:
    (path / "output" / "model.txt").write_text("y")  # as many bytes


def damage_content_and_time(path: Path) -> None:
    file = path / "output" / "model.txt"
    stat = file.stat()
    damage_content(path)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.parametrize("kind", ["train", "features", "sample", "score", "requests"])
@pytest.mark.parametrize("damage", [damage_content, damage_content_and_time])
@pytest.mark.parametrize("settled", [False, True])
def test_content_that_was_changed_at_equal_size_is_found_out(tmp_path, kind, damage, settled, monkeypatch):
    monkeypatch.setattr("harness.store.digests._SETTLED_S", -1.0 if settled else 2.0)
    store = Store(tmp_path)
    with store.working(kind, KEY) as work:
        work.output.mkdir(parents=True)
        (work.output / "model.txt").write_text("x")
        entry = store.commit(work, kind, KEY, digest="d", meta={})
    assert store.find(kind, KEY) == entry and store.find(kind, KEY) == entry
    time.sleep(0.02)  # time stamps move on
    damage(entry.path)
    assert store.find(kind, KEY) is None
    kept = store.put_changed_aside(kind, KEY)
    assert kept and (kept / "output" / "model.txt").read_text() == "y"


def test_what_was_read_once_is_not_read_again(tmp_path, monkeypatch):
    monkeypatch.setattr("harness.store.digests._SETTLED_S", -1.0)
    store, read = Store(tmp_path), []
    entry_path = fill(store)
    monkeypatch.setattr("harness.store.digests.sha256_file", lambda path: read.append(path) or sha256_file(path))
    assert store.find("train", KEY) and read == []
    (note,) = (tmp_path / "digests").iterdir()
    before = note.stat().st_mtime_ns, note.stat().st_ino
    assert store.find("train", KEY) and (note.stat().st_mtime_ns, note.stat().st_ino) == before
    (entry_path / "output" / "model.txt").touch()
    assert store.find("train", KEY) and store.find("train", KEY)
    assert read == [str(entry_path / "output" / "model.txt")]


def test_an_entry_of_the_first_version_is_still_found(tmp_path):
    store = Store(tmp_path)
    path = fill(store) / "entry.json"
    row = json.loads(path.read_text())
    row["files"] = dict.fromkeys(row.pop("sha256"), 1)
    path.write_text(json.dumps(row))
    assert store.find("train", KEY)


def test_a_store_that_cannot_be_written_is_still_read(tmp_path):
    fill(Store(tmp_path))
    shutil.rmtree(tmp_path / "digests", ignore_errors=True)
    (tmp_path / "digests").touch()  # no folder can be made here
    assert Store(tmp_path).find("train", KEY)


def test_a_second_commit_replaces_the_first(tmp_path):
    store = Store(tmp_path)
    fill(store, "first")
    fill(store, "second")
    entry = store.find("train", KEY)
    assert entry and (entry.output / "model.txt").read_text() == "second"


def test_work_whose_lease_was_taken_over_is_not_committed(tmp_path):
    store = Store(tmp_path)
    with store.working("train", KEY) as work:
        work.output.mkdir(parents=True)
        (work.lease.path.parent / "2.json").write_text("{}")
        with pytest.raises(EnvironmentFailure, match="took this step over"):
            store.commit(work, "train", KEY, digest="d", meta={})
    assert store.find("train", KEY) is None
