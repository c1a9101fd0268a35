"""Text and JSON that anybody may have written: a value, or a ValueError that says in a few words what is wrong.

Readers catch ValueError alone and put the file in front; what else the parsers raise, and how they hang, is known here.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

MAX_DEPTH = 100
"""Levels of nesting that are read; more would exhaust Python's stack in whoever handles the value."""

_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_SURROGATES = re.compile("[\ud800-\udfff]")
_ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def decode_utf8(data: bytes) -> str:
    """The text of UTF-8 bytes, without a byte-order mark.

    Raises:
        ValueError: another encoding.
    """
    if data.startswith(_UTF_16):
        raise ValueError("the text is UTF-16; save it as UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start} is not UTF-8; save the text as UTF-8") from None


def is_unicode(text: str) -> bool:
    """Whether a text can be written as UTF-8: false with half of a surrogate pair, as names of files may have."""
    return _SURROGATES.search(text) is None


def as_unicode(text: str) -> str:
    """`text` with halves of surrogate pairs, which no file can hold, as U+FFFD."""
    return _SURROGATES.sub("\ufffd", text)


def parse_json(text: str | bytes, *, strict: bool = True) -> Any:
    """The value of a JSON text.

    Args:
        text: bytes are UTF-8.
        strict: refuses what other programs write though it is not JSON: NaN, infinities, and repeated keys, of which
            the last counts.
    Raises:
        ValueError: it is not JSON, is nested more than MAX_DEPTH deep, has a number beyond the range of float (which
            would become infinite), or half of a surrogate pair.
    """
    if isinstance(text, bytes):
        text = decode_utf8(text)
    rules: dict[str, Any] = {"parse_float": _finite_float}
    if strict:
        rules |= {"parse_constant": _refuse_constant, "object_pairs_hook": _unique_keys}
    try:
        value = json.loads(text, **rules)
        if _ESCAPED_SURROGATE.search(text) and not is_unicode(json.dumps(value, ensure_ascii=False)):
            raise ValueError("half of a surrogate pair is no character")
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if text.count("[") + text.count("{") > MAX_DEPTH and _is_deeper(value, MAX_DEPTH):
        raise ValueError("nested too deeply")
    return value


def _finite_float(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text:.20} is beyond the range of numbers")
    return number


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON; use null")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) != len(pairs):
        raise ValueError("a key is repeated in one object")
    return row


def _is_deeper(value: Any, levels: int) -> bool:
    level = [value]
    for _ in range(levels):
        inner = [item.values() if isinstance(item, dict) else item for item in level if isinstance(item, dict | list)]
        level = [child for children in inner for child in children]
    return any(isinstance(item, dict | list) for item in level)
