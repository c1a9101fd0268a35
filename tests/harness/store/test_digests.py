from __future__ import annotations

import os
import time

import pytest

from harness.contract.digest import sha256_file
from harness.contract.errors import UserError
from harness.store.digests import DigestMemo


def settle(path) -> None:
    """Make a file look unchanged for a while. The change time cannot be set, so wait where it counts."""
    time.sleep(2.1)


def test_a_file_has_its_sha256(tmp_path):
    path = tmp_path / "a"
    path.write_text("x")
    assert DigestMemo(tmp_path / "memo").of(path) == sha256_file(path)


def test_a_settled_file_is_read_once_and_a_change_is_noticed(tmp_path):
    memo, path = DigestMemo(tmp_path / "memo"), tmp_path / "a"
    path.write_text("x")
    settle(path)
    first = memo.of(path)
    assert len(list((tmp_path / "memo").iterdir())) == 1
    times = path.stat()
    path.write_text("y")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # same size, same time: only the change time tells
    assert memo.of(path) == sha256_file(path) != first


def test_a_file_that_has_just_changed_is_not_remembered(tmp_path):
    path = tmp_path / "a"
    path.write_text("x")
    DigestMemo(tmp_path / "memo").of(path)
    assert not (tmp_path / "memo").exists()


def test_a_folder_is_its_names_and_contents(tmp_path):
    memo = DigestMemo(tmp_path / "memo")
    for name in ("one", "two"):
        (tmp_path / name / "deep").mkdir(parents=True)
        (tmp_path / name / "deep" / "a").write_text("x")
    assert memo.of(tmp_path / "one") == memo.of(tmp_path / "two")
    (tmp_path / "two" / "deep" / "a").rename(tmp_path / "two" / "deep" / "b")
    assert memo.of(tmp_path / "one") != memo.of(tmp_path / "two")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match="nothing-here"):
        DigestMemo(tmp_path / "memo").of(tmp_path / "nothing-here")


def test_a_link_to_a_file_of_our_own_is_no_change_and_a_write_is(tmp_path, monkeypatch):
    memo, path, reads = DigestMemo(tmp_path / "memo"), tmp_path / "a", []
    monkeypatch.setattr("harness.store.digests.sha256_file", lambda path: reads.append(path) or sha256_file(path))
    path.write_text("x")
    settle(path)
    first = memo.file(path, ours=True)
    os.link(path, tmp_path / "link")
    assert memo.file(path, ours=True) == first and len(reads) == 1
    (tmp_path / "link").write_text("y")
    assert memo.file(path, ours=True) == sha256_file(path) != first


def test_what_cannot_be_read_to_its_end_is_refused_and_links_in_a_circle_are_followed_once(tmp_path):
    memo, folder = DigestMemo(tmp_path / "memo"), tmp_path / "data"
    folder.mkdir()
    (folder / "a").write_text("a")
    alone = memo.of(folder)
    (folder / "again").symlink_to(".")
    (folder / ".DS_Store").write_text("the operating system's")
    assert memo.of(folder) == alone
    os.mkfifo(folder / "pipe")
    with pytest.raises(UserError, match="pipe: is not a file that can be read to its end"):
        memo.of(folder)
    (folder / "pipe").unlink()
    (folder / "itself").symlink_to("itself")
    with pytest.raises(UserError, match="itself: is a link to something that is not there"):
        memo.of(folder)
