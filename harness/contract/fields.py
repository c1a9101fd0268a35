"""Reads the fields of a JSON object one by one, with a sentence for each thing that can be wrong with them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from harness.contract.digest import is_digest
from harness.contract.errors import UserError

_MISSING = object()


class Fields:
    """A JSON object being read, and the place (file, line) it came from.

    Every getter names a field and raises `error` when the field is absent or of another kind. `done` then refuses
    whatever is left over, so a misspelt field is found rather than ignored.
    """

    def __init__(self, row: Any, where: str, error: type[UserError] = UserError) -> None:
        self.where = where
        self.error = error
        if not isinstance(row, Mapping):
            raise error(f"{where}: holds a {type(row).__name__}, not a JSON object; write the file again.")
        self._row = dict(row)

    def fail(self, problem: str) -> UserError:
        """The error to raise for `problem`, with the place in front."""
        return self.error(f"{self.where}: {problem}")

    def format(self, name: str, version: int) -> None:
        """Check the two fields that open every file of the contract: `format` and `schema_version`."""
        found = self._take("format", _MISSING)
        if found != name:
            raise self.fail(f"'format' is {found!r}, not {name!r}; this is another kind of file.")
        found_version = self.integer("schema_version", low=0)
        if found_version != version:
            raise self.fail(
                f"schema_version {found_version} is not the {version} this program reads; "
                "use the program version that wrote the file, or write it again with this one."
            )

    def text(self, name: str, default: Any = _MISSING, *, empty: bool = False) -> Any:
        """A string (or `default` when the field is absent or null and a default is given); not "" unless `empty`."""
        wanted = "a string" if empty else "a non-empty string"
        return self._checked(name, default, lambda value: isinstance(value, str) and (empty or value != ""), wanted)

    def flag(self, name: str, default: Any = _MISSING) -> Any:
        """True or false."""
        return self._checked(name, default, lambda value: isinstance(value, bool), "true or false")

    def integer(self, name: str, *, low: int, high: int | None = None, default: Any = _MISSING) -> Any:
        """A whole number, low <= value < high."""
        limit = f"of at least {low}" if high is None else f"from {low} to {high - 1}"
        return self._checked(
            name,
            default,
            lambda value: type(value) is int and value >= low and (high is None or value < high),
            f"a whole number {limit}",
        )

    def number(self, name: str, default: Any = _MISSING) -> Any:
        """A finite number, as float."""
        value = self._checked(name, default, _is_number, "a finite number")
        return float(value) if _is_number(value) else value

    def digest(self, name: str, default: Any = _MISSING) -> Any:
        """A SHA-256 digest."""
        return self._checked(name, default, is_digest, "a sha256 (64 lower-case hexadecimal digits)")

    def choice(self, name: str, options: Sequence[str]) -> Any:
        """One of `options`."""
        return self._checked(name, _MISSING, lambda value: value in options, " or ".join(map(repr, options)))

    def mapping(self, name: str, default: Any = _MISSING) -> Any:
        """A JSON object, as dict."""
        return self._checked(name, default, lambda value: isinstance(value, dict), "an object")

    def array(self, name: str, default: Any = _MISSING) -> Any:
        """A JSON array, as list."""
        return self._checked(name, default, lambda value: isinstance(value, list), "an array")

    def done(self) -> None:
        """Refuse fields that nobody asked for."""
        if self._row:
            names = ", ".join(map(repr, sorted(self._row)))
            raise self.fail(f"unknown field {names}; correct the name or remove it.")

    def _checked(self, name: str, default: Any, accepts: Any, wanted: str) -> Any:
        value = self._take(name, default)
        if value is None and default is not _MISSING:
            return default
        if value is _MISSING:
            raise self.fail(f"the field {name!r} is missing; it must be {wanted}.")
        is_default = type(value) is type(default) and value == default
        if not is_default and not accepts(value):
            raise self.fail(f"{name!r} is {_short(value)}, which is not {wanted}.")
        return value

    def _take(self, name: str, default: Any) -> Any:
        return self._row.pop(name, default)


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond the range of float
        return False


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
