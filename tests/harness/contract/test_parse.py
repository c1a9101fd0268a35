"""Text and JSON of anybody: a value or a ValueError, whatever the bytes; and soon."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.contract.errors import UserError
from harness.contract.files import as_read_back, read_json, read_json_lines, write_json, write_json_lines
from harness.contract.parse import MAX_DEPTH, as_unicode, decode_utf8, is_unicode, parse_json

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)
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
