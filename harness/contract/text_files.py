"""Prompts and captions as people save them: the one reader of text files, tables and lists of texts.

What is unambiguous is read: UTF-8 with or without a byte-order mark, UTF-16 and UTF-32 with one, the line ends of every
system, commas, semicolons or tabs between the columns of a table. All else is a ValueError that names the line, and
readers put the file in front.
"""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Iterable, Iterator
from typing import Any

from harness.contract.parse import is_unicode, parse_json

_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark its own begins with
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_SEPARATORS = (",", ";", "\t")

Numbered = Iterator[tuple[int, Any]]
"""(number of a line from 1, what it holds)."""


def decode_text(data: bytes) -> str:
    """The text of a file that anybody may have saved, with "\\n" line ends and without a byte-order mark.

    Raises:
        ValueError: naming the line that is not in the encoding, or holds NUL characters.
    """
    encoding = next((name for mark, name in _MARKS.items() if data.startswith(mark)), "utf-8-sig")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        name = "UTF-8" if encoding == "utf-8-sig" else encoding.upper()
        raise ValueError(f"line {line}: is not {name}; save the text as UTF-8") from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise ValueError(f"line {line}: holds a NUL character; save the text as UTF-8")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def text_lines(text: str) -> Iterator[tuple[int, str]]:
    """(number, line) of the lines that are not blank. Only "\\n" ends a line: captions may hold U+2028."""
    return ((number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip())


def json_lines(text: str) -> Numbered:
    """(number, value) of a text with one JSON value per line; ValueError names the line that is none."""
    for number, line in text_lines(text):
        try:
            value = parse_json(line, strict=False)
        except ValueError as error:
            raise ValueError(f"line {number}: is not JSON ({error})") from None
        yield number, value


def csv_rows(text: str, columns: Iterable[str]) -> Numbered:
    """(number of its last line, column -> text) of every row of a table with a header.

    Args:
        text: separated by commas, semicolons or tabs: by what parts the header so that it has one of `columns`. A first
            line "sep=;" is Excel's way to say it.
        columns: names that the caller looks for.
    Raises:
        ValueError: the header has none of the columns, a row has more or fewer fields than the header, or a quotation
            mark is not closed.
    """
    first, _, rest = text.partition("\n")
    said = first.strip('"')[4:5] if first.strip('"').lower().startswith("sep=") else ""
    start, table = (1, rest) if said else (0, text)
    reader = csv.reader(io.StringIO(table, newline=""), delimiter=said or _separator(first, set(columns)), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        for row in reader:
            if any(row):
                yield reader.line_num + start, dict(zip(header, _fitted(row, len(header)), strict=True))
    except (csv.Error, ValueError) as error:
        raise ValueError(f"line {reader.line_num + start}: {error}") from None


def _separator(header: str, columns: set[str]) -> str:
    for separator in _SEPARATORS:
        if columns & {name.strip().strip('"') for name in header.split(separator)}:
            return separator
    raise ValueError(f"line 1: the header {header!r:.80} has no column {' or '.join(sorted(columns))}")


def _fitted(row: list[str], width: int) -> list[str]:
    if len(row) > width and not any(row[width:]):  # empty columns that a spreadsheet has added
        return row[:width]
    if len(row) != width:
        raise ValueError(f"has {len(row)} fields where the header has {width}; put texts with separators in quotes")
    return row


def one_text(value: Any, place: str) -> str:
    """`value`, if it is text that can be drawn or written.

    Raises:
        ValueError: it is no text, blank, or has half of a surrogate pair; `place` goes in front.
    """
    if not isinstance(value, str):
        raise ValueError(f"{place}: holds {'null' if value is None else type(value).__name__} where a text is due")
    if not value.strip():
        raise ValueError(f"{place}: is blank where a text is due")
    if not is_unicode(value):
        raise ValueError(f"{place}: holds half of a surrogate pair, which is no character")
    return value
