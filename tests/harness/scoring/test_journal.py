"""Finished rows survive a kill, and are worth nothing under other settings."""

from __future__ import annotations

from pathlib import Path

from harness.scoring.journal import Journal


def test_rows_are_there_when_it_is_opened_again(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.jsonl", {"samples": "a"})
    journal.add("one", {"score": 1.0, "reply": "Füchse"})
    journal.close()
    again = Journal(tmp_path / "j.jsonl", {"samples": "a"})
    assert again.rows == {"one": {"score": 1.0, "reply": "Füchse"}} and "one" in again


def test_a_line_that_a_kill_cut_off_is_dropped_and_the_next_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    journal = Journal(path, {})
    journal.add("one", {"x": 1})
    journal.close()
    path.write_bytes(path.read_bytes() + b'{"key": "two", "ro')
    again = Journal(path, {})
    assert list(again.rows) == ["one"]
    again.add("two", {"x": 2})
    again.close()
    assert Journal(path, {}).rows == {"one": {"x": 1}, "two": {"x": 2}}


def test_other_settings_begin_anew(tmp_path: Path) -> None:
    Journal(tmp_path / "j.jsonl", {"threshold": 0.3}).add("one", {"x": 1})
    assert Journal(tmp_path / "j.jsonl", {"threshold": 0.4}).rows == {}


def test_a_later_row_of_the_same_key_counts(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.jsonl", {})
    journal.add("one", {"score": None})
    journal.add("one", {"score": 1})
    journal.close()
    assert Journal(tmp_path / "j.jsonl", {}).rows["one"] == {"score": 1}
