"""Reads the fields of a JSON object one by one, with a one-sentence error for whatever is wrong."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Protocol, TypeVar

from harness.contract.digest import is_digest
from harness.contract.errors import UserError

T = TypeVar("T")


class Limit(Protocol):
    """Narrows a type inside `Annotated`: `Annotated[int, Within(1)]`. Any class with these two methods does."""

    def holds(self, value: Any) -> bool:
        """Whether a value of the type is allowed."""

    def __str__(self) -> str:
        """The words that follow "must be text" or "must be a whole number" in the message."""


@dataclass(frozen=True)
class Within:
    """A bound on a number, or on the length of a text, list or mapping."""

    low: float
    """The least that is allowed."""
    below: float | None = None
    """The exclusive upper bound; None: no upper bound."""

    def holds(self, value: Any) -> bool:
        """Whether a number, or the length of anything else, is within."""
        size = value if isinstance(value, int | float) else len(value)
        return size >= self.low and (self.below is None or size < self.below)

    def __str__(self) -> str:
        return f"of at least {self.low}" if self.below is None else f"from {self.low} to below {self.below}"

    def as_length(self) -> str:
        """The same for anything but a number."""
        return "that is not empty" if (self.low, self.below) == (1, None) else f"with a length {self}"


@dataclass(frozen=True)
class OrInfinity(Within):
    """A bound on a number that may also be infinite: for limits, where it means none."""


@dataclass(frozen=True)
class Sha256:
    """A text that is a digest: `Annotated[str, Sha256()]`."""

    def holds(self, value: Any) -> bool:
        """Whether it is one."""
        return is_digest(value)

    def __str__(self) -> str:
        return "that is a sha256 (64 lower-case hexadecimal digits)"


Text = Annotated[str, Within(1)]
"""A text that is not empty."""
Digest = Annotated[str, Sha256()]
"""A SHA-256 digest as text."""


def build(cls: type[T], values: Any, where: str, *, error: type[UserError] = UserError, path: str = "") -> T:
    """An instance of the dataclass `cls` from plain JSON or YAML values, by the types of its fields.

    A field may be bool, int, float, str, Literal, Any, a list, tuple, sequence or mapping of these, another dataclass,
    or a union (`int | None`); `Annotated` with a `Limit` narrows it. A whole number is accepted as a float, never
    the reverse; true and false are not numbers; floats are finite. A field with a default may be absent. Lists
    and `Sequence`s become lists, tuples tuples, mappings dicts.

    What the class itself refuses in `__post_init__` is reported as well. The message of a ValueError or TypeError names
    the class's own fields, so file and section are put in front of it; a UserError names its section itself, so only
    the file is put in front. A class with `from_dict` (a base class that finds its subclass) reads its own values.

    Args:
        cls: a dataclass.
        values: a mapping with its fields.
        where: what is read, for messages: a file, a file and line, "the configuration".
        error: what is raised.
        path: of this section within what is read, such as "stages.e2e".
    Raises:
        UserError: (or `error`) naming the field that is unknown (with the nearest known one), missing, or wrong.
    """
    try:
        instance: T = _read_object(cls, values)
    except _RefusedError as refused:
        raise error(where + refused.sentence(path)) from None
    return instance


@functools.cache
def field_types(cls: type) -> dict[str, Any]:
    """Name -> type of the fields that a dataclass is made from, `Annotated` included."""
    hints = typing.get_type_hints(cls, include_extras=True)
    return {entry.name: hints[entry.name] for entry in dataclasses.fields(cls) if entry.init}


class _RefusedError(Exception):
    """A value that cannot be read. Its path is built as the exception propagates, so valid values cost nothing."""

    def __init__(self, say: Callable[[str], str]) -> None:
        self._say = say
        """Place inside what is read ("" for all of it) -> the sentence, to be put behind the file."""
        self.names: list[str] = []
        """Fields and indices that lead to the value, outermost first."""

    def sentence(self, path: str) -> str:
        return self._say(".".join([path, *self.names] if path else self.names))


def _wrong(wanted: str, value: Any) -> _RefusedError:
    return _RefusedError(lambda path: f"{f': {path}' if path else ''} must be {wanted}, not {_short(value)}.")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


# Index files have 50,000 lines. So the types of a class are inspected once, and each field gets a reader: a function
# that returns the value, or raises _RefusedError.
_Reader = Callable[[Any], Any]


@functools.cache
def _readers(cls: type) -> tuple[dict[str, _Reader], tuple[str, ...]]:
    """The readers of a class's fields, and the names of those that must be there."""
    types_of = field_types(cls)
    required = tuple(entry.name for entry in dataclasses.fields(cls) if _is_required(entry))
    return {name: _reader(kind) for name, kind in types_of.items()}, required


def _is_required(entry: dataclasses.Field[Any]) -> bool:
    return entry.init and entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING


def _read_object(cls: Any, values: Any) -> Any:
    if not isinstance(values, Mapping):
        raise _wrong(_NAMES[dict], values)
    readers, required = _readers(cls)
    arguments = {}
    for name, value in values.items():
        reader = readers.get(name)
        if reader is None:
            raise _unknown(name, readers)
        try:
            arguments[name] = reader(value)
        except _RefusedError as refused:
            refused.names.insert(0, name)
            raise
    for name in required:
        if name not in arguments:
            raise _missing(name)
    try:
        return cls(**arguments)
    except (TypeError, ValueError, UserError) as problem:
        raise _refused_by_class(problem) from None


def _refused_by_class(problem: Exception) -> _RefusedError:
    sentence = f": {str(problem).rstrip('.')}."
    if isinstance(problem, UserError):
        return _RefusedError(lambda path: sentence)
    return _RefusedError(lambda path: f"{f': {path}' if path else ''}{sentence}")


def _unknown(name: Any, known: Mapping[str, Any]) -> _RefusedError:
    near = difflib.get_close_matches(str(name), known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"this section has: {', '.join(known) or 'none'}."
    refused = _RefusedError(lambda path: f" has no field {path!r}; {hint}")
    refused.names.append(str(name))
    return refused


def _missing(name: str) -> _RefusedError:
    refused = _RefusedError(lambda path: f": the field {path!r} is missing; add it.")
    refused.names.append(name)
    return refused


def _reader(kind: Any) -> _Reader:
    """How a value of the type `kind` is read."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return lambda value: value
    if origin is Annotated:
        return _limited_reader(arguments[0], arguments[1:])
    if hasattr(kind, "from_dict"):
        return _own_reader(kind)
    if dataclasses.is_dataclass(kind):
        return functools.partial(_read_object, kind)
    if origin in (typing.Union, types.UnionType):
        return _union_reader(arguments)
    if origin is Literal:
        return _choice_reader(arguments)
    if _is_generic(origin, Mapping):
        return _mapping_reader(arguments[1])
    if _is_generic(origin, Sequence):
        return _tuple_reader(arguments) if origin is tuple else _list_reader(arguments[0])
    return _read_float if kind is float else _plain_reader(kind)


def _is_generic(origin: Any, base: type) -> bool:
    return isinstance(origin, type) and issubclass(origin, base)


def _limited_reader(kind: Any, limits: Sequence[Limit]) -> _Reader:
    wanted = _describe(kind)
    inner = _read_number if any(isinstance(limit, OrInfinity) for limit in limits) else _reader(kind)

    def read(value: Any) -> Any:
        found = inner(value)
        for limit in limits:
            if found is not None and not limit.holds(found):
                raise _wrong(_narrowed(wanted, limit), value)
        return found

    return read


def _own_reader(kind: Any) -> _Reader:
    def read(value: Any) -> Any:
        try:
            return kind.from_dict(value)
        except ValueError as problem:
            raise _refused_by_class(problem) from None

    return read


def _union_reader(kinds: Sequence[Any]) -> _Reader:
    is_optional, kinds = type(None) in kinds, [kind for kind in kinds if kind is not type(None)]
    readers = [_reader(kind) for kind in kinds]
    wanted = " or ".join(dict.fromkeys(map(_describe, kinds)))

    def read(value: Any) -> Any:
        if value is None and is_optional:
            return None
        if len(readers) == 1:
            return readers[0](value)
        fits = [_fit(kind, value) for kind in kinds]
        if not any(fits):
            raise _wrong(wanted, value)
        return readers[fits.index(max(fits))](value)

    return read


def _fit(kind: Any, value: Any) -> int:
    """How well `value` fits one type of a union (0: not at all); among dataclasses, by the number of fields it has."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return 1
    if origin is Annotated:
        return _fit(arguments[0], value)
    if origin is Literal:
        return 2 * (value in arguments)
    if dataclasses.is_dataclass(kind):
        return 1 + sum(name in value for name in field_types(kind)) if isinstance(value, Mapping) else 0  # type: ignore[arg-type]
    if isinstance(value, bool):
        return int(kind is bool)
    if kind is float:
        return int(isinstance(value, int | float))
    expected = origin or kind
    return (2 if expected is int else 1) if isinstance(value, expected) else 0


def _choice_reader(options: Sequence[Any]) -> _Reader:
    def read(value: Any) -> Any:
        if not any(value == option and type(value) is type(option) for option in options):
            choices = ", ".join(map(str, options))
            raise _RefusedError(lambda path: f": {path} is {_short(value)}; choose one of {choices}.")
        return value

    return read


def _mapping_reader(kind: Any) -> _Reader:
    inner = _reader(kind)

    def read(value: Any) -> Any:
        if not isinstance(value, Mapping):
            raise _wrong(_NAMES[dict], value)
        return {name: _read_inside(inner, name, item) for name, item in value.items()}

    return read


def _list_reader(kind: Any) -> _Reader:
    inner = _reader(kind)

    def read(value: Any) -> Any:
        if not _is_list(value):
            raise _wrong(_NAMES[list], value)
        return [_read_inside(inner, index, item) for index, item in enumerate(value)]

    return read


def _tuple_reader(kinds: Sequence[Any]) -> _Reader:
    if kinds[-1] is Ellipsis:
        as_list = _list_reader(kinds[0])
        return lambda value: tuple(as_list(value))
    readers = [_reader(kind) for kind in kinds]

    def read(value: Any) -> Any:
        if not _is_list(value) or len(value) != len(readers):
            raise _wrong(f"{_NAMES[list]} of {len(readers)}", value)
        return tuple(_read_inside(readers[index], index, item) for index, item in enumerate(value))

    return read


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _read_inside(reader: _Reader, name: Any, value: Any) -> Any:
    try:
        return reader(value)
    except _RefusedError as refused:
        refused.names.insert(0, str(name))
        raise


def _read_number(value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise _wrong(_NAMES[float], value)
    try:
        return float(value)
    except OverflowError:  # a whole number beyond the range of float
        return math.inf


def _read_float(value: Any) -> float:
    number = _read_number(value)
    if not math.isfinite(number):
        raise _wrong("a finite number", value)
    return number


def _plain_reader(kind: Any) -> _Reader:
    refuses_bool = kind is not bool

    def read(value: Any) -> Any:
        if not isinstance(value, kind) or (refuses_bool and isinstance(value, bool)):
            raise _wrong(_describe(kind), value)
        return value

    return read


def _describe(kind: Any) -> str:
    """A type in words."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        kind, *limits = arguments
        return functools.reduce(_narrowed, limits, _describe(kind))
    if origin is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if dataclasses.is_dataclass(kind) or _is_generic(origin, Mapping):
        return _NAMES[dict]
    if _is_generic(origin, Sequence):
        return _NAMES[list]
    return _NAMES.get(kind, getattr(kind, "__name__", str(kind)))


def _narrowed(kind: str, limit: Limit) -> str:
    is_number = kind in (_NAMES[int], _NAMES[float])
    return f"{kind} {limit.as_length() if isinstance(limit, Within) and not is_number else limit}"


_NAMES: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
    dict: "a section with fields",
    list: "a list",
}
