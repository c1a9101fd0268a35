"""Text, JSON and YAML of anybody: a value or a ValueError, whatever the bytes; and soon."""

from __future__ import annotations

import contextlib
import json
import random
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.contract.errors import UserError
from harness.contract.files import as_read_back, read_json, read_json_lines, write_json, write_json_lines
from harness.contract.parse import MAX_DEPTH, as_unicode, decode_utf8, is_unicode, parse_json, parse_yaml

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)
ALIASES = "a: &a [1,1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 10)}]\n" for i in range(9)
)
WRONG_YAML = {
    "an impossible date": "2001-13-45",
    "no bool": "!!bool x",
    "no timestamp": "!!timestamp x",
    "no number": "a: !!int x",
    "a class": "!!python/object/apply:os.system [ls]",
    "a list as a key": "? [a]\n: b",
    "brackets": "[" * 3000,
    "more brackets": "[" * 100_000,
    "dashes": "- " * 3000,
    "aliases of aliases": ALIASES,
    "an alias in itself": "a: &a [*a]",
    "a merge with itself": "a: &a {<<: *a}",
    "a huge text": "a: 1\n" * 100_000,
    "two documents": "--- 1\n--- 2",
    "an open quote": "a: 'b",
    "a control character": "a: \0",
    "UTF-16": "a: 1".encode("utf-16"),
    "latin-1": "ä".encode("latin-1"),
}
WRONG_JSON = {
    "not JSON": "{",
    "a number beyond float": "1e999",
    "a negative one": '{"a": [-1e400]}',
    "a number of 5,000 digits": "9" * 5000,
    "half of a pair": r'"\ud800"',
    "the other half in a key": r'{"\uDC00": 1}',
    "two first halves": r'["\ud83d\ud83d"]',
    "deep": "[" * 500 + "]" * 500,
    "very deep": "[" * 100_000,
    "UTF-16": '"a"'.encode("utf-16"),
    "latin-1": '"ä"'.encode("latin-1"),
    "half of a pair as bytes": b'"\xed\xa0\x80"',
}
LENIENT_JSON = {"NaN": "[NaN]", "infinity": "-Infinity", "a key twice": '{"a": 1, "a": 2}'}


@pytest.mark.parametrize("text", WRONG_YAML.values(), ids=WRONG_YAML.keys())
def test_yaml_that_is_wrong_is_a_value_error_in_one_line(text: str | bytes) -> None:
    with pytest.raises(ValueError, match=r"\S") as caught:
        parse_yaml(text)
    assert str(caught.value) and "\n" not in str(caught.value) and " object at 0x" not in str(caught.value)


@pytest.mark.parametrize("text", WRONG_JSON.values(), ids=WRONG_JSON.keys())
@pytest.mark.parametrize("strict", [True, False])
def test_json_that_is_wrong_is_a_value_error(text: str | bytes, strict: bool) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        parse_json(text, strict=strict)


@pytest.mark.parametrize("text", LENIENT_JSON.values(), ids=LENIENT_JSON.keys())
def test_what_other_programs_write_is_read_where_it_is_allowed(text: str) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        parse_json(text)
    parse_json(text, strict=False)


def test_what_is_right_is_read() -> None:
    assert parse_json('"\\ud83d\\ude00"') == "😀"
    assert parse_json("[" * MAX_DEPTH + "]" * MAX_DEPTH) and parse_json(b'\xef\xbb\xbf{"a": 1}') == {"a": 1}
    assert parse_yaml("a: &a {b: 1}\nc: {<<: *a, d: *a}") == {"a": {"b": 1}, "c": {"b": 1, "d": {"b": 1}}}
    assert parse_yaml("") is None and parse_yaml("# a comment") is None and parse_yaml(b"1") == 1
    assert decode_utf8("\ufeffä".encode()) == "ä"


@settings(max_examples=100, deadline=None)
@given(JSON)
def test_json_comes_back_as_it_was_written(value: object) -> None:
    assert parse_json(json.dumps(value)) == value
    assert parse_json(json.dumps(value, ensure_ascii=False).encode()) == value


@settings(max_examples=200, deadline=None)
@given(st.text() | st.binary() | st.text(alphabet='[]{}",:\\ud8019eE-.NaI\n '))
def test_any_text_is_json_or_a_value_error(text: str | bytes) -> None:
    for strict in (True, False):
        try:
            value = parse_json(text, strict=strict)
        except ValueError:
            continue
        assert is_unicode(json.dumps(value, ensure_ascii=False, allow_nan=not strict))


@pytest.mark.parametrize("seed", range(4))
def test_a_changed_yaml_file_is_read_or_a_value_error(seed: int) -> None:
    """Single bytes and pieces of files of this repository, changed by chance."""
    rng = random.Random(seed)
    root = Path(__file__).parents[3]
    texts = [path.read_bytes() for path in sorted(root.glob("benchmarks/*/benchmark.yaml"))[:4]]
    pieces = [b"!!bool x", b"&a [*a]", b"2001-13-45", b"[[[[", b"\xff", b"\0", b"<<: ", b"!!timestamp ", b"'", b"- - -"]
    for _ in range(25):
        text = bytearray(rng.choice(texts))
        place = rng.randrange(len(text))
        text[place : place + rng.randrange(3)] = rng.choice([*pieces, bytes([rng.randrange(256)])])
        try:
            value = parse_yaml(bytes(text))
        except ValueError:
            continue
        assert yaml.safe_load(text.decode("utf-8-sig")) == value or value != value  # NaN


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="[]{}:,&*a1 -?!|>'\"\n%#<~.") | st.text())
def test_any_text_is_yaml_or_a_value_error(text: str) -> None:
    with contextlib.suppress(ValueError):
        parse_yaml(text)


# --- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", WRONG_JSON.values(), ids=WRONG_JSON.keys())
def test_the_readers_of_files_name_the_file_and_the_line(tmp_path: Path, text: str | bytes) -> None:
    content = text if isinstance(text, bytes) else text.encode()
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.json: is not valid JSON"):
        read_json(tmp_path / "a.json")
    (tmp_path / "a.jsonl").write_bytes(b"{}\n" + content.replace(b"\n", b"") + b"\n")
    with pytest.raises(UserError, match=r"a\.jsonl, line 2: is not valid JSON"):
        list(read_json_lines(tmp_path / "a.jsonl"))


def test_a_name_that_is_not_unicode_can_be_written(tmp_path: Path) -> None:
    row = {"path": "\udcff.png"}
    write_json(tmp_path / "a.json", row)
    write_json_lines(tmp_path / "a.jsonl", [row])
    assert read_json(tmp_path / "a.json") == {"path": "\ufffd.png"} == as_read_back(row, "x")
    assert list(read_json_lines(tmp_path / "a.jsonl")) == [(1, {"path": "\ufffd.png"})]
    assert as_unicode("ä😀") == "ä😀"
