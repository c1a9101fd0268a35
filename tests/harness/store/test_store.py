"""The store believes only what was renamed into it whole."""

from __future__ import annotations

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


def test_a_score_that_was_edited_counts_as_not_there(tmp_path):
    store = Store(tmp_path)
    with store.working("score", KEY) as work:
        work.output.mkdir(parents=True)
        file = work.output / "score.json"
        file.write_text('{"value": 3}')
        entry = store.commit(work, "score", KEY, digest=sha256_file(file), meta={})
    assert store.find("score", KEY) == entry
    (entry.output / "score.json").write_text('{"value": 1}')  # as many bytes
    assert store.find("score", KEY) is None


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
