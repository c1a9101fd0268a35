"""Frozen TensorFlow graphs without TensorFlow: a file of nodes, read by the format's own definition, into plain values.

Nothing in the file is executed, and no constant can be larger than the file that holds it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.contract.errors import EnvironmentFailure

try:
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from tensorboard.compat.proto.graph_pb2 import GraphDef
except ImportError as error:
    raise EnvironmentFailure(
        f"the definition of TensorFlow's files cannot be imported ({error}); run this scorer through the harness with "
        "--set adm.backend=torch, or in an environment made from benchmarks/adm/requirements-torch.lock."
    ) from error

Array = npt.NDArray[Any]

_LARGEST_FILE = 1 << 30
_LARGEST_FILL = 1 << 20
"""Values of a constant that the file gives as one value and a shape."""
_NUMPY = {1: np.float32, 2: np.float64, 3: np.int32, 9: np.int64, 10: np.bool_}
"""Types of constants, by TensorFlow's number; DT_FLOAT, DT_DOUBLE, DT_INT32, DT_INT64, DT_BOOL."""
_VALUES = {1: "float_val", 2: "double_val", 3: "int_val", 9: "int64_val", 10: "bool_val"}
_TYPE_NAMES = {1: "float32", 2: "float64", 3: "int32", 4: "uint8", 9: "int64", 10: "bool"}


@dataclass(frozen=True, kw_only=True, eq=False)
class Node:
    """One operation of a graph."""

    name: str
    op: str
    inputs: tuple[str, ...]
    """Names of nodes, in order; control inputs are left out."""
    attributes: Mapping[str, Any]
    """Numbers, texts, lists of whole numbers, names of types, and arrays for constants."""


def read_graph(path: Path) -> dict[str, Node]:
    """The nodes of a frozen graph by name.

    Raises:
        ValueError: the file is no graph, or a node of it cannot be understood; says why.
    """
    if path.stat().st_size > _LARGEST_FILE:
        raise ValueError(f"the file is larger than {_LARGEST_FILE >> 20:,} MiB")
    definition = GraphDef()
    try:
        definition.ParseFromString(path.read_bytes())
    except DecodeError as error:
        raise ValueError(f"it cannot be decoded: {error}") from error
    nodes = {node.name: _node(node) for node in definition.node}
    if len(nodes) < len(definition.node):
        raise ValueError("two nodes have the same name")
    return nodes


def in_order(nodes: Mapping[str, Node], wanted: Iterable[str], fed: str) -> list[Node]:
    """The nodes that the wanted ones need, each after those it reads; `fed` is given from outside.

    Raises:
        ValueError: a node is missing, or reads itself.
    """
    order: list[Node] = []
    states: dict[str, bool] = {fed: True}  # False while its inputs are being visited
    stack = [(name, False) for name in wanted]
    while stack:
        name, inputs_done = stack.pop()
        if inputs_done:
            states[name] = True
            order.append(nodes[name])
        elif name not in states:
            if name not in nodes:
                raise ValueError(f"it has no node {name!r}")
            states[name] = False
            stack.append((name, True))
            waiting = [one for one in nodes[name].inputs if not states.get(one, False)]
            if any(one in states for one in waiting):
                raise ValueError(f"the node {name!r} reads its own output")
            stack += [(one, False) for one in waiting]
    return order


def _node(node: Any) -> Node:
    inputs = tuple(_first_output(name) for name in node.input if not name.startswith("^"))
    # Constants alone are large; what other kinds of nodes carry in unknown attributes does not matter.
    attributes = dict(_attributes(node.name, node.attr))
    return Node(name=node.name, op=node.op, inputs=inputs, attributes=attributes)


def _first_output(name: str) -> str:
    node, _, number = name.partition(":")
    if number not in ("", "0"):
        raise ValueError(f"a node reads {name!r}, and outputs other than the first are not supported")
    return node


def _attributes(node: str, values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        match value.WhichOneof("value"):
            case "i" | "f" | "b":
                yield name, getattr(value, value.WhichOneof("value"))
            case "s":
                yield name, value.s.decode("utf-8", "replace")
            case "type":
                yield name, _TYPE_NAMES.get(value.type, f"type {value.type}")
            case "list":
                yield name, tuple(value.list.i)
            case "tensor":
                yield name, _array(node, value.tensor)


def _array(node: str, tensor: Any) -> Array:
    """A constant as an array; a text (a label of a class, say), which no feature depends on, as an empty one."""
    if tensor.dtype not in _NUMPY:
        return np.zeros(0)
    shape = tuple(dimension.size for dimension in tensor.tensor_shape.dim)
    count = int(np.prod(shape, dtype=object)) if shape else 1
    dtype = np.dtype(_NUMPY[tensor.dtype])
    content = tensor.tensor_content
    if content:
        given = np.frombuffer(content, dtype, len(content) // dtype.itemsize)
    else:
        given = np.array(getattr(tensor, _VALUES[tensor.dtype]), dtype)
    if len(given) < count <= _LARGEST_FILL and len(given) and not content:  # the last one is repeated
        given = np.concatenate([given, np.repeat(given[-1:], count - len(given))])
    if min(shape, default=0) < 0 or len(given) != count:
        raise ValueError(f"the constant {node!r} has {len(given):,} values for the shape {shape}")
    return given.reshape(shape)
