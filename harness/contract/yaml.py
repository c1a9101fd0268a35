"""Reads YAML that others wrote: plain values, or one sentence that says what is wrong and where.

Text, numbers, true, false, null, lists and mappings, as in JSON; dates stay text. `1e-4` is a number, as in YAML 1.2.
Anchors and merge keys work. Bounds: MAX_BYTES of text, MAX_VALUES after anchors are followed, MAX_DEPTH of nesting.
PyYAML is imported when it is used.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

from harness.contract.errors import UserError

MAX_BYTES = 128 << 10
MAX_VALUES = 50_000
MAX_DEPTH = 50

_SCIENTIFIC = re.compile(r"[-+]?(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9][0-9_]*)[eE][-+]?[0-9]+\Z")
_TYPES = ("map", "seq", "str", "null", "bool", "int", "float")
"""The tags that are read; everything else (dates, sets, bytes, objects) is refused where it is written out."""


class YamlError(ValueError):
    """A text cannot be read as YAML; the message is the reason, on one line."""


def read_yaml(path: Path) -> Any:
    """The values in a YAML file; UserError names the file, the line and the reason."""
    try:
        if path.exists() and not path.is_file():
            raise YamlError("it is not a file")
        with path.open("rb") as stream:
            return parse_yaml(stream.read(MAX_BYTES + 1).decode("utf-8"))
    except UnicodeDecodeError:
        reason = "it is not UTF-8 text"
    except OSError as error:
        reason = error.strerror or str(error)
    except ValueError as error:  # YamlError, or a path that no file can have
        reason = str(error)
    raise UserError(f"{path}: cannot be read as YAML ({reason}); correct the file.")


def parse_yaml(text: str) -> Any:
    """The values of a YAML text. Raises YamlError."""
    import yaml

    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise YamlError(f"it is longer than {MAX_BYTES >> 10} KiB")
    try:
        return yaml.load(text, Loader=_loader())
    except YamlError:
        raise
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = "" if mark is None else f"line {mark.line + 1}, column {mark.column + 1}: "
        reason = f"{where}{error.problem or error.context}"
    except yaml.reader.ReaderError as error:
        reason = f"character {error.position + 1}: {error.reason}"
    except RecursionError:
        reason = _TOO_DEEP
    except (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
        reason = f"a value is not of its type: {error}"  # how PyYAML fails on !!bool x, !!int "" and the like
    raise YamlError(" ".join(reason.split()))


_TOO_DEEP = f"it is nested more than {MAX_DEPTH} levels deep"


@functools.cache
def _loader() -> Any:
    """The loader class; made here, so that importing this module does not import PyYAML."""
    import yaml

    class Loader(yaml.SafeLoader):
        yaml_constructors = {  # noqa: RUF012 - PyYAML's own table
            tag: made
            for tag, made in yaml.SafeLoader.yaml_constructors.items()
            if tag is None or tag.rpartition(":")[2] in _TYPES
        }
        yaml_implicit_resolvers = {  # noqa: RUF012
            first: [(tag, known) for tag, known in rules if tag.rpartition(":")[2] in (*_TYPES, "merge")]
            for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }

        def get_single_node(self) -> Any:
            node = super().get_single_node()
            if node is not None:
                _Measure().values(node, 0)
            return node

    Loader.add_implicit_resolver("tag:yaml.org,2002:float", _SCIENTIFIC, list("-+.0123456789"))
    return Loader


class _Measure:
    """Counts what a document becomes, before anything is made of it: each use of an anchor counts anew."""

    def __init__(self) -> None:
        self._counted: dict[int, int] = {}
        self._open: set[int] = set()

    def values(self, node: Any, depth: int) -> int:
        """Values in `node`, itself included. Raises YamlError beyond the bounds."""
        if depth > MAX_DEPTH:
            raise YamlError(_TOO_DEEP)
        if id(node) in self._open:
            raise YamlError("an anchor contains itself")
        if id(node) not in self._counted:
            self._open.add(id(node))
            self._counted[id(node)] = 1 + sum(self.values(inner, depth + 1) for inner in self._inside(node))
            self._open.remove(id(node))
        if self._counted[id(node)] > MAX_VALUES:
            raise YamlError(f"it holds more than {MAX_VALUES} values")
        return self._counted[id(node)]

    @staticmethod
    def _inside(node: Any) -> list[Any]:
        if node.id == "scalar":
            return []
        if node.id == "sequence":
            return list(node.value)
        seen = set()
        for key, _ in node.value:
            if key.id == "scalar" and key.value in seen:
                raise YamlError(f"line {key.start_mark.line + 1}: {key.value!r:.80} stands twice in one section")
            seen.add(key.value if key.id == "scalar" else None)
        return [part for pair in node.value for part in pair]
