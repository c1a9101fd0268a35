"""Reads the fields of a JSON object one by one, with a sentence for each thing that can be wrong with them."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from harness.contract.digest import is_digest
from harness.contract.errors import UserError

T = TypeVar("T")
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


# --- dataclasses from plain values -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Within:
    """A bound on a number, or on the length of a text, list or mapping: `Annotated[int, Within(1)]`."""

    low: float
    """The least that is allowed."""
    below: float | None = None
    """Everything from here on is too much; None: no upper bound."""

    def holds(self, value: Any) -> bool:
        """Whether a number, or the length of anything else, is within."""
        size = value if isinstance(value, int | float) else len(value)
        return size >= self.low and (self.below is None or size < self.below)

    def __str__(self) -> str:
        return f"of at least {self.low}" if self.below is None else f"from {self.low} to below {self.below}"


@dataclass(frozen=True)
class Sha256:
    """A text that is a digest: `Annotated[str, Sha256()]`."""

    def holds(self, value: Any) -> bool:
        """Whether it is one."""
        return is_digest(value)

    def __str__(self) -> str:
        return "that is a sha256 (64 lower-case hexadecimal digits)"


def build(cls: type[T], values: Any, where: str, *, error: type[UserError] = UserError, path: str = "") -> T:
    """An instance of the dataclass `cls` from plain JSON or YAML values, by the types of its fields.

    Fields may be bool, int, float, str, Literal, Any, Optional and unions, tuples, sequences, mappings, and dataclasses
    of these; `Annotated` with `Within` or `Sha256` narrows them. A whole number is taken for a float, never the other
    way round; a field with a default may be absent. What the class itself refuses in `__post_init__` (ValueError or
    UserError) is reported with the place in front. A class with `from_dict` reads its own values.

    Args:
        cls: a dataclass.
        values: a mapping with its fields.
        where: what is read, for messages: a file, a file and line, "the configuration".
        error: what is raised.
        path: of this section within what is read, such as "stages.e2e".
    Raises:
        UserError: (or `error`) naming the field that is unknown (with the nearest known one), missing, or wrong.
    """
    place = f"{where}: {path}" if path else where
    if not isinstance(values, Mapping):
        raise error(f"{place} must be a section with fields, not {_short(values)}.")
    kinds = _kinds(cls)
    arguments = {}
    for name, value in values.items():
        full = f"{path}.{name}" if path else str(name)
        if name not in kinds:
            near = difflib.get_close_matches(str(name), kinds, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"this section has: {', '.join(kinds) or 'none'}."
            raise error(f"{where} has no field {full!r}; {hint}")
        arguments[name] = _value(kinds[name], value, _Place(where, full, error))
    missing = [entry.name for entry in dataclasses.fields(cls) if _is_required(entry) and entry.name not in arguments]  # type: ignore[arg-type]
    if missing:
        full = f"{path}.{missing[0]}" if path else missing[0]
        raise error(f"{where}: the field {full!r} is missing; add it.")
    try:
        return cls(**arguments)
    except (TypeError, ValueError, UserError) as problem:
        raise error(f"{place}: {str(problem).rstrip('.')}.") from None


@dataclass(frozen=True)
class _Place:
    """Where a value stands, for the sentence about it."""

    where: str
    path: str
    error: type[UserError]

    def refuse(self, wanted: str, value: Any) -> UserError:
        return self.error(f"{self.where}: {self.path} must be {wanted}, not {_short(value)}.")

    def inside(self, name: Any) -> _Place:
        return _Place(self.where, f"{self.path}.{name}", self.error)


@functools.cache
def _kinds(cls: type) -> dict[str, Any]:
    hints = typing.get_type_hints(cls, include_extras=True)
    return {entry.name: hints[entry.name] for entry in dataclasses.fields(cls) if entry.init}


def _is_required(entry: dataclasses.Field[Any]) -> bool:
    return entry.init and entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING


def _value(kind: Any, value: Any, place: _Place) -> Any:
    """`value` as the type `kind` says."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if origin is Annotated:
        inner = _value(arguments[0], value, place)
        for limit in arguments[1:]:
            if inner is not None and not limit.holds(inner):
                raise place.refuse(f"{_name(arguments[0])} {limit}", value)
        return inner
    if hasattr(kind, "from_dict"):  # a base class that finds its subclass by itself
        try:
            return kind.from_dict(value)
        except ValueError as problem:
            raise place.error(f"{place.where}: {place.path}: {str(problem).rstrip('.')}.") from None
    if dataclasses.is_dataclass(kind):
        return build(typing.cast("type[Any]", kind), value, place.where, error=place.error, path=place.path)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return _value(_nearest(arguments, value), value, place)
    if origin is Literal:
        if value not in arguments:
            raise place.error(
                f"{place.where}: {place.path} is {_short(value)}; choose one of {', '.join(map(str, arguments))}."
            )
        return value
    if isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise place.refuse("a section with fields", value)
        return {name: _value(arguments[1], item, place.inside(name)) for name, item in value.items()}
    if isinstance(origin, type) and issubclass(origin, Sequence):
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise place.refuse("a list", value)
        kinds = arguments[:1] * len(value) if origin is not tuple or arguments[-1] is Ellipsis else arguments
        if len(kinds) != len(value):
            raise place.refuse(f"a list of {len(kinds)}", value)
        items = [_value(inner, item, place.inside(i)) for i, (inner, item) in enumerate(zip(kinds, value, strict=True))]
        return tuple(items) if origin is not list else items
    return _plain(kind, value, place)


def _plain(kind: Any, value: Any, place: _Place) -> Any:
    """A number, text or truth value."""
    if kind is float and isinstance(value, str):
        value = number_like(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return _finite(float(value), place) if _is_number(value) else _finite(math.inf, place)
    wrong = not isinstance(value, kind) or (kind is int and isinstance(value, bool))
    if wrong:
        raise place.refuse(_name(kind), value)
    return _finite(value, place) if kind is float else value


def _finite(value: float, place: _Place) -> float:
    if not math.isfinite(value):
        raise place.refuse("a finite number", value)
    return value


def number_like(value: Any) -> Any:
    """YAML 1.1 reads 1e-4 as a text; people mean a number."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _nearest(kinds: Sequence[Any], value: Any) -> Any:
    """Of a union's types the one that `value` is meant to be: of several sections, the one with most of its fields."""
    there = [kind for kind in kinds if kind is not type(None)]
    if len(there) == 1:
        return there[0]
    if isinstance(value, Mapping):
        return max(there, key=lambda kind: sum(name in value for name in _kinds(kind)))
    return next((kind for kind in there if isinstance(kind, type) and isinstance(value, kind)), there[0])


def _name(kind: Any) -> str:
    return _NAMES.get(kind, getattr(kind, "__name__", str(kind)))


_NAMES = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
    dict: "a section with fields",
    list: "a list",
}
