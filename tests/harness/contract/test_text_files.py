"""Texts as people save them: what is unambiguous is read, and what is not is refused with its line."""

from __future__ import annotations

import random

import pytest

from harness.contract.text_files import csv_rows, decode_text, json_lines, one_text, text_lines

TEXT = "a naïve café\nein Käfer\u2028und 猫"
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-32")


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_text_is_the_same_in_every_encoding_that_names_itself(encoding: str, end: str) -> None:
    assert decode_text(TEXT.replace("\n", end).encode(encoding)) == TEXT


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_the_marks_of_both_byte_orders_are_known(encoding: str) -> None:
    assert decode_text(f"\ufeff{TEXT}".encode(encoding)) == TEXT


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ("plain\ncafé".encode("latin-1"), "line 2: is not UTF-8; save the text as UTF-8"),
        ("a cat".encode("utf-16-le"), "line 1: holds a NUL character"),
        (b"\xff\xfea", "line 1: is not UTF-16"),
        (b"a\nb\nc\0", "line 3: holds a NUL character"),
    ],
)
def test_another_encoding_is_refused_with_the_line(data: bytes, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        decode_text(data)


def test_lines_are_numbered_as_an_editor_numbers_them() -> None:
    assert list(text_lines("a\n\n  \nb\u2028c\n")) == [(1, "a"), (4, "b\u2028c")]
    assert list(json_lines('\n{"a": 1}\n"b"')) == [(2, {"a": 1}), (3, "b")]
    with pytest.raises(ValueError, match="line 2: is not JSON"):
        list(json_lines("1\n{"))


@pytest.mark.parametrize(
    "text",
    [
        "name,caption\na.png,one\nb.png,two\n",
        "name;caption\na.png;one\nb.png;two",
        "name\tcaption\na.png\tone\nb.png\ttwo\n\n",
        "sep=;\nname;caption\na.png;one\nb.png;two\n",
        '"name","caption"\n"a.png","one"\n"b.png","two"\n',
        " name , caption\na.png,one\n,\nb.png,two\n",
        "name,caption,,\na.png,one,,\nb.png,two,,\n",
        "name,caption\na.png,one,,\nb.png,two,,\n",
    ],
)
def test_a_table_is_read_however_a_spreadsheet_parts_it(text: str) -> None:
    rows = [(row["name"], row["caption"]) for _, row in csv_rows(text, ["name"])]
    assert rows == [("a.png", "one"), ("b.png", "two")]


def test_a_field_in_quotes_may_hold_separators_and_lines() -> None:
    text = 'name,caption\na.png,"one, ""two""\nthree"\nb.png,4\n'
    assert [(number, row["caption"]) for number, row in csv_rows(text, ["name"])] == [
        (3, 'one, "two"\nthree'),
        (4, "4"),
    ]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("name,caption\na.png,a cat, on a mat\n", "line 2: has 3 fields where the header has 2"),
        ("name,caption\na.png,a\nb.png\n", "line 3: has 1 fields where the header has 2"),
        ('name,caption\na.png,"a\nb.png,b\n', "line 3: unexpected end of data"),
        ("a.png,a cat\n", "line 1: the header 'a.png,a cat' has no column caption or name"),
        ("", "line 1: the header '' has no column"),
        ("sep=;\nname;caption\na;b;c", "line 3: has 3 fields"),
    ],
)
def test_a_table_that_would_lose_text_is_refused_with_the_line(text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        list(csv_rows(text, ["name", "caption"]))


@pytest.mark.parametrize("value", [None, "", " \n", 3, ["a"], "\ud800"])
def test_what_is_no_text_is_refused_where_it_stands(value: object) -> None:
    with pytest.raises(ValueError, match="line 4: "):
        one_text(value, "line 4")


@pytest.mark.parametrize("seed", range(30))
def test_a_damaged_table_is_read_or_refused_with_its_line(seed: int) -> None:
    chance = random.Random(seed)
    data = bytearray('name;caption\na.png;"one; two"\nb.png;naïve\n'.encode(chance.choice(ENCODINGS)))
    for _ in range(chance.randint(1, 4)):
        data[chance.randrange(len(data))] = chance.choice((0, 10, 13, 34, 44, 59, 239, 255, chance.randrange(256)))
    problem, rows = "", []
    try:
        rows = list(csv_rows(decode_text(bytes(data)), ["name"]))
    except ValueError as error:
        problem = str(error)
    assert problem.startswith("line ") or all("name" in row for _, row in rows)
