"""Text that others wrote, as it may be kept and shown: no secret in it, and nothing in it that acts on a terminal."""

from __future__ import annotations

import codecs
import io
import os
import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

SECRET = "[secret]"
"""Stands where a secret was."""

_NAMES = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?|_PAT|_PW)$", re.IGNORECASE)
_IN_ADDRESS = re.compile(r"(?<=://)[^\s/@:]*:[^\s/@]+@")
_SHORTEST = 8
"""A shorter value ("1", "none", "EMPTY") protects nothing, and replacing it would spoil other text."""
_SHORTEST_GIVEN = 5
"""The same for a judge's key and for passwords, which are secrets for certain."""


def is_secret_name(name: str) -> bool:
    """Whether an environment variable of this name holds a secret: it ends in KEY, TOKEN, PASSWORD or the like."""
    return _NAMES.search(name) is not None


def without_secrets(text: str) -> str:
    """`text` without the values of secret environment variables, and without the passwords of addresses."""
    secrets = _secrets(tuple(os.environ.items()))
    text = _IN_ADDRESS.sub(f"{SECRET}@", text)
    return secrets.sub(SECRET, text) if secrets else text


def conceal(value: Any) -> Any:
    """A JSON value of which every text, at any depth, is without secrets; tuples become lists."""
    if isinstance(value, str):
        return without_secrets(value)
    if isinstance(value, Mapping):
        return {conceal(key): conceal(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [conceal(item) for item in value]
    return value


@lru_cache(maxsize=4)
def _secrets(variables: tuple[tuple[str, str], ...]) -> re.Pattern[str] | None:
    found = {secret for name, value in variables for secret in _secrets_of(name, value)}
    # The longest first: one may begin with another.
    return re.compile("|".join(map(re.escape, sorted(found, key=len, reverse=True)))) if found else None


def _secrets_of(name: str, value: str) -> Iterator[str]:
    shortest = _SHORTEST_GIVEN if name.startswith("HARNESS_") else _SHORTEST
    if is_secret_name(name) and len(value) >= shortest and not Path(value[:255]).exists():  # not the path of a key
        yield value
    from urllib.parse import unquote, urlsplit  # only here: `--help` answers at once

    try:
        password = urlsplit(value).password or "" if "@" in value else ""
    except ValueError:
        return
    if len(password) >= _SHORTEST_GIVEN:
        yield from {password, unquote(password)}


def shell_line(words: Sequence[str]) -> str:
    """A command line as it is shown, to be copied into a shell, where a word such as "KEY=$KEY" keeps its meaning."""
    return printable(without_secrets(" ".join(map(_quoted, words))))


def _quoted(word: str) -> str:
    return _FROM_SHELL.sub(r'\1="$\1"', word) if _FROM_SHELL.fullmatch(word) else shlex.quote(word)


_FROM_SHELL = re.compile(r"(\w+)=\$\1")


def printable(text: str) -> str:
    r"""`text` with every character that would act on a terminal written out, such as \u001b; lines and tabs stay.

    That is control characters, and those that turn the direction of writing. In JSON text it is the same text.
    """
    return _ACTING.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


_ACTING = re.compile(
    "\r(?!\n)|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]"
)


# --- terminals of other encodings ---


def print_in_any_encoding() -> None:
    """Make stdout and stderr print what their encoding lacks in other characters, instead of failing; call it first."""
    codecs.register_error(_IN_ITS_PLACE, _in_its_place)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_IN_ITS_PLACE)


_IN_ITS_PLACE = "harness.in_its_place"
_PLAIN = {
    "✓": "+", "✗": "x", "·": "*", "…": "...", "→": "->", "–": "-", "−": "-", "↑": "^", "↓": "v", "±": "+-", "×": "x",
    "τ": "tau", "’": "'", "≥": ">=", "≤": "<=",
}  # fmt: skip


def _in_its_place(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letters = error.object[error.start : error.end]
    return "".join(_PLAIN.get(letter) or ascii(letter)[1:-1] for letter in letters), error.end
