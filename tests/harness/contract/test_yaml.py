"""One reader of YAML: a value, or a sentence; never a traceback, never minutes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from harness.contract.errors import UserError
from harness.contract.yaml import MAX_BYTES, MAX_DEPTH, YamlError, parse_yaml, read_yaml


def bomb(line: str) -> str:
    return "a0: &a0 {x: 1}\n" + "".join(f"a{i}: &a{i} " + line.format(i - 1) + "\n" for i in range(1, 30))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2001-13-45", "2001-13-45"),
        ("2001-01-01", "2001-01-01"),
        ("1e-4", 1e-4),
        ("+1.e3", 1000.0),
        ("1e3b", "1e3b"),
        ("'1e3'", "1e3"),
        ("[1, true, ~, yes]", [1, True, None, True]),
        ("{a: &x {b: 1}, c: {<<: *x, d: 2}}", {"a": {"b": 1}, "c": {"b": 1, "d": 2}}),
        ("", None),
        ("\ufeffa: 1", {"a": 1}),
    ],
)
def test_what_is_read(text: str, value: Any) -> None:
    assert parse_yaml(text) == value


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("!!bool x", "a value is not of its type"),
        ("!!int ''", "a value is not of its type"),
        ("!!float x", "a value is not of its type"),
        ("9" * 5000, "a value is not of its type"),
        ("!!timestamp x", "timestamp"),
        ("!!timestamp 2001-13-45", "timestamp"),
        ("!!set {a}", "set"),
        ("!!binary x", "binary"),
        ("!!python/object/apply:os.system [ls]", "python/object"),
        ("[" * 3000, f"nested more than {MAX_DEPTH} levels deep"),
        ("[" * 60 + "]" * 60, f"nested more than {MAX_DEPTH} levels deep"),
        ("- " * 3000, f"nested more than {MAX_DEPTH} levels deep"),
        ("a: [1, 2\nb: 3", "line 2, column 2: "),
        ("a: 1\nb: 2\na: 3", "line 3: 'a' stands twice in one section"),
        ("{[1]: 2}", "unhashable key"),
        ("a: *b", "undefined alias 'b'"),
        ("a: &a [*a]", "an anchor contains itself"),
        ("a\n---\nb", "another document"),
        ("%YAML 3.0\n---\na", "incompatible YAML document"),
        ("\x00", "character 1: special characters are not allowed"),
        ("\ud800", "character 1: special characters are not allowed"),
        (bomb("[*a{0}, *a{0}, *a{0}]"), "holds more than"),
        (bomb("{{<<: [*a{0}, *a{0}, *a{0}]}}"), "holds more than"),
        ("a" * (MAX_BYTES + 1), "longer than"),
    ],
    ids=lambda text: text[:30],
)
def test_what_is_refused_with_a_reason_on_one_line(text: str, reason: str) -> None:
    with pytest.raises(YamlError, match=".*".join(reason.split("*"))) as refused:
        parse_yaml(text)
    assert "\n" not in str(refused.value)


def test_a_file_is_named_with_the_line(tmp_path: Path) -> None:
    path = tmp_path / "benchmark.yaml"
    path.write_text("id: x\nversion: [1\n")
    with pytest.raises(UserError, match=r"benchmark\.yaml: cannot be read as YAML \(line 3, column 1: .*\); correct"):
        read_yaml(path)


def test_what_is_no_text_file_is_refused_without_waiting(tmp_path: Path) -> None:
    (tmp_path / "binary.yaml").write_bytes(bytes(range(256)))
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "folder.yaml").mkdir()
    for name, reason in {
        "binary.yaml": "it is not UTF-8 text",
        "pipe.yaml": "it is not a file",
        "folder.yaml": "it is not a file",
        "none.yaml": "No such file",
        "\0.yaml": "null byte",
    }.items():
        with pytest.raises(UserError, match=reason):
            read_yaml(tmp_path / name)
