"""Dataclasses from plain values, strict about names and types: what is wrong is said in the user's words."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar

from gear.presets import number_like
from harness.contract.errors import UserError

T = TypeVar("T")


def build(cls: type[T], values: Any, where: str = "") -> T:
    """An instance of the dataclass `cls`; nested sections become the dataclasses that its fields ask for.

    where: the path of this section, for messages. Raises UserError naming the field that is unknown (with the nearest
    known name), has the wrong type, or is refused by the dataclass itself.
    """
    if not isinstance(values, Mapping):
        raise UserError(f"{where or 'the configuration'} must be a section with fields, not {values!r}.")
    hints = typing.get_type_hints(cls)
    known = [entry.name for entry in dataclasses.fields(cls)]  # type: ignore[arg-type]
    arguments = {}
    for name, value in values.items():
        path = f"{where}.{name}" if where else name
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise UserError(
                f"the configuration has no field {path!r}"
                + (f"; did you mean {near[0]!r}?" if near else f"; this section has: {', '.join(known)}.")
            )
        arguments[name] = _value(hints[name], value, path)
    try:
        return cls(**arguments)
    except (TypeError, ValueError) as error:
        raise UserError(f"{where + ': ' if where else ''}{error}.") from None


def _value(hint: Any, value: Any, where: str) -> Any:
    """`value` as the type `hint` says, or a UserError."""
    origin, choices = typing.get_origin(hint), typing.get_args(hint)
    if hasattr(hint, "from_dict"):  # a base class that finds its subclass by itself
        try:
            return hint.from_dict(value)
        except ValueError as error:
            raise UserError(f"{where}: {error}.") from None
    if dataclasses.is_dataclass(hint):
        return build(typing.cast("type[Any]", hint), value, where)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in choices:
            return None
        return _value(_nearest(choices, value), value, where)
    if origin is Literal:
        if value not in choices:
            raise UserError(f"{where} is {value!r}; choose one of {', '.join(map(str, choices))}.")
        return value
    if origin is dict:
        return {key: _value(choices[1], item, f"{where}.{key}") for key, item in value.items()}
    return _plain(hint, value, where)


def _plain(hint: Any, value: Any, where: str) -> Any:
    """A number, text or truth value; whole numbers are taken for floats, never the other way round."""
    if hint is float and isinstance(value, str):
        value = number_like(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(hint, type) and (not isinstance(value, hint) or (hint is int and isinstance(value, bool))):
        raise UserError(f"{where} must be {_TYPE_NAMES.get(hint, hint.__name__)}, not {value!r}.")
    return value


def _nearest(choices: Sequence[Any], value: Any) -> Any:
    """Of a union's types the one that `value` is meant to be: of several sections, the one with most of its fields."""
    types_ = [choice for choice in choices if choice is not type(None)]
    if len(types_) == 1 or not isinstance(value, Mapping):
        return types_[0]
    return max(types_, key=lambda cls: sum(entry.name in value for entry in dataclasses.fields(cls)))


_TYPE_NAMES = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
