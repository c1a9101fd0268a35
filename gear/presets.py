"""Presets: configurations with a name, as plain values. `gear.config` defines what the values mean.

A preset is a YAML file in `gear/configs` (or anywhere). It may name another one it `extends`, and then holds only what
differs. A file with `axes` defines a family of presets, one per combination of choices:

    axes:
      size: {values: {b: {...}, xl: {...}}}                    # required in the name: imagenet-xl-...
      teacher: {default: dinov2, values: {dinov2: {...}, ...}}   # optional

so that imagenet-xl-vq and imagenet-xl-vq-dinov3 both come from one file. A choice's values are merged over the
file's own, in the order of the axes.
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.contract.errors import UserError
from harness.contract.fields import build
from harness.contract.yaml import YamlError, parse_yaml, read_yaml

CONFIGS_DIR = Path(__file__).parent / "configs"

Values = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One choice that a family of presets leaves to its name."""

    name: str
    values: Mapping[str, Values]
    """The fields that a choice changes; `about` describes it to the user."""
    default: str | None = None
    """The choice if the name has none; None: the name must have one."""

    def __post_init__(self) -> None:
        if any(not isinstance(choice, str) for choice in self.values):
            raise ValueError("values must have text as names; put them in quotes")
        if self.default is not None and self.default not in self.values:
            raise ValueError(f"the default {self.default!r} is none of {', '.join(self.values)}")

    @property
    def placeholder(self) -> str:
        """As in imagenet-SIZE-TOKENIZER[-TEACHER]."""
        return f"-{self.name.upper()}" if self.default is None else f"[-{self.name.upper()}]"


@dataclass(frozen=True, kw_only=True)
class Family:
    """A file with axes."""

    stem: str
    about: str
    base: Values
    axes: tuple[Axis, ...]

    @property
    def pattern(self) -> str:
        """imagenet-SIZE-TOKENIZER[-TEACHER]..."""
        return self.stem + "".join(axis.placeholder for axis in self.axes)

    def names(self) -> Iterator[str]:
        """All combinations of the required axes; with the first of these, also every optional choice, one at a time."""

        required = [axis.values for axis in self.axes if axis.default is None]
        for index, chosen in enumerate(itertools.product(*required)):
            name = "-".join([self.stem, *chosen])
            yield name
            if index == 0:
                optional = [axis for axis in self.axes if axis.default is not None]
                yield from (f"{name}-{value}" for axis in optional for value in axis.values if value != axis.default)

    def choices(self, name: str) -> dict[str, str]:
        """Axis -> choice, as `name` spells them. UserError where it does not follow the pattern."""
        rest, chosen = name.removeprefix(self.stem), {}
        for axis in self.axes:
            found = [value for value in axis.values if f"{rest}-".startswith(f"-{value}-")]
            value = max(found, key=len, default=axis.default)
            if value is None:
                raise self._unknown(name, rest, axis)
            chosen[axis.name] = value
            rest = rest.removeprefix(f"-{value}") if found else rest
        if rest:
            raise self._unknown(name, rest)
        return chosen

    def read(self, name: str) -> Values:
        """The values of one preset of this family."""
        values = {**self.base, "name": name}
        for axis_name, value in self.choices(name).items():
            axis = next(axis for axis in self.axes if axis.name == axis_name)
            values = merge(values, {key: item for key, item in axis.values[value].items() if key != "about"})
        return values

    def _unknown(self, name: str, rest: str, axis: Axis | None = None) -> UserError:
        """The error for a name that is wrong from `rest` on. axis: the one whose choice was expected there."""
        part = rest.removeprefix("-")
        axes = (axis,) if axis else self.axes
        values = [value for axis in axes for value in axis.values]
        near = difflib.get_close_matches(part.split("-")[0], values, n=1)
        if not part:
            problem = f"{axes[0].name.upper()} is missing ({', '.join(values)})"
        elif any(f"{part}-".startswith(f"{value}-") for axis in self.axes for value in axis.values):
            problem = f"{part!r} is in the wrong place"
        elif near:
            problem = f"{part!r} is none of them; did you mean {near[0]}?"
        else:
            problem = f"{part!r} is none of them; choose from {', '.join(values)}"
        return UserError(f"no preset named {name!r}: names are {self.pattern}, and {problem}")


def read_preset(source: str | Path, extended: tuple[Path, ...] = ()) -> Values:
    """The values of a preset's name or a YAML file, with everything it extends merged, innermost base first.

    extended: the files that lead here by what they extend.
    Raises UserError: unknown name (with the nearest one), unreadable file, or one without sections.
    """
    path = Path(source)
    if path.suffix not in (".yaml", ".yml"):
        shipped = {path.stem: path for path in _shipped()}
        if str(source) not in shipped:
            return _family_of(str(source)).read(str(source))
        path = shipped[str(source)]
    values = _read_yaml(path)
    values.pop("about", None)
    if "axes" in values:
        return _family(path).read(path.stem)
    base = values.pop("extends", None)
    if base is None:
        return values
    if not isinstance(base, str) or path.resolve() in extended:
        problem = "it extends itself" if isinstance(base, str) else f"{base!r:.80} is no name of a preset or file"
        raise UserError(f"{path}: extends cannot be followed ({problem}); name another preset.")
    return merge(read_preset(base, (*extended, path.resolve())), values)


def families() -> list[Family]:
    """The families of presets that come with the package."""
    return [_family(path) for path in _shipped() if "axes" in _read_yaml(path)]


def single_presets() -> dict[str, str]:
    """Name -> what it is for, of the shipped presets without axes."""
    read = {path.stem: _read_yaml(path) for path in _shipped()}
    return {name: str(values.get("about", "")) for name, values in read.items() if "axes" not in values}


def preset_names() -> list[str]:
    """Names that together show every choice; a family has more combinations than are listed."""
    return sorted([*single_presets(), *(name for family in families() for name in family.names())])


def apply_override(values: Values, override: str) -> None:
    """Set one field in place: `stages.e2e.steps=300`. The value is read as YAML."""
    name, equals, text = override.partition("=")
    if not equals or not name:
        raise UserError(f"--set {override!r} is not of the form section.field=value, e.g. --set stages.e2e.steps=300.")
    try:
        value = parse_yaml(text)
    except YamlError as error:
        raise UserError(
            f"--set {override!r:.80}: the value cannot be read ({error}); quote text with special characters."
        ) from None
    *sections, last = name.split(".")
    target = values
    for section in sections:
        target = target.setdefault(section, {})
        if not isinstance(target, dict):
            raise UserError(f"--set {override!r}: {section!r} is a single value, not a section.")
    target[last] = value


def section(values: Values, name: str) -> Values:
    """One section of a configuration; empty where it has none. UserError where it is a single value."""
    found = values.get(name, {})
    if not isinstance(found, dict):
        raise UserError(f"the section {name!r} of the configuration must hold fields, not {found!r:.80}.")
    return found


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> Values:
    """`base` with the fields of `over`, section by section."""
    if base.get("family", over.get("family")) != over.get("family", base.get("family")):
        return dict(over)  # another tokenizer family has other fields: nothing to inherit
    merged = dict(base)
    for key, value in over.items():
        merged[key] = (
            merge(merged[key], value) if isinstance(merged.get(key), dict) and isinstance(value, dict) else value
        )
    return merged


def _shipped() -> Sequence[Path]:
    return sorted(CONFIGS_DIR.glob("*.yaml"))


def _family(path: Path) -> Family:
    values = _read_yaml(path)
    about, axes = str(values.pop("about", "")), values.pop("axes")
    if not isinstance(axes, dict):
        raise UserError(f"{path}: axes must be a section with one entry per choice, not {axes!r:.80}.")
    named = {str(name): {"name": str(name), **axis} if isinstance(axis, dict) else axis for name, axis in axes.items()}
    built = tuple(build(Axis, axis, str(path), path=f"axes.{name}") for name, axis in named.items())
    return Family(stem=path.stem, about=about, base=values, axes=built)


def _family_of(name: str) -> Family:
    for family in families():
        if name == family.stem or name.startswith(f"{family.stem}-"):
            return family
    near = difflib.get_close_matches(name, preset_names(), n=1)
    known = ", ".join([*single_presets(), *(family.pattern for family in families())])
    raise UserError(f"no preset named {name!r}; " + (f"did you mean {near[0]}?" if near else f"there are: {known}."))


def _read_yaml(path: Path) -> Values:
    values = read_yaml(path)
    if not isinstance(values, dict):
        raise UserError(
            f"{path} must hold a mapping of sections (data, tokenizer, ar, ...), not {type(values).__name__}."
        )
    return values
