"""What every conformance area shares: reading a golden case, comparing, and the result of a comparison."""

from __future__ import annotations

import ast
import json
import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


class Unsupported(Exception):
    """The case asks for something this project does not build yet; the message says what."""


@dataclass(frozen=True)
class Result:
    """One comparison: `error` and `tolerance` are in the same unit, `passed` is the verdict."""

    name: str
    error: float
    tolerance: float
    passed: bool
    detail: str = ""

    @property
    def strain(self) -> float:
        """Share of the tolerance that was used up; above 1 is a failure."""
        if self.tolerance > 0:
            return self.error / self.tolerance
        return 0.0 if self.passed else float("inf")


def load_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def load_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """The arrays of a `.safetensors` or `.npz` file; nothing in it is unpickled."""
    if path.suffix == ".safetensors":
        from safetensors.numpy import load_file

        return load_file(path)
    with np.load(path, allow_pickle=False) as archive:
        return {key: archive[key] for key in archive.files}


def load_case(path: Path) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    """A case's json and the arrays beside it (same stem); the arrays are empty where there is no such file."""
    meta = load_json(path)
    for suffix in (".safetensors", ".npz"):
        arrays_path = path.with_suffix(suffix)
        if arrays_path.exists():
            return meta, load_arrays(arrays_path)
    return meta, {}


def to_numpy(value: Any) -> npt.NDArray[Any]:
    """A NumPy array from a tensor, an array or a number."""
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    return np.asarray(value)


def check(name: str, got: Any, want: Any, *, atol: float, rtol: float = 0.0) -> Result:
    """Compare elementwise: |got - want| <= atol + rtol |want|.

    The reported error is the largest excess measured in the unit of the limit at that element, so that
    `error / tolerance` is the largest share of any element's limit.
    """
    got, want = to_numpy(got), to_numpy(want)
    if got.shape != want.shape:
        return Result(name, float("inf"), atol, False, f"shape {got.shape}, expected {want.shape}")
    if got.size == 0:
        return Result(name, 0.0, atol, True, "empty")
    got64, want64 = got.astype(np.float64), want.astype(np.float64)
    if not np.array_equal(np.isnan(got64), np.isnan(want64)):
        return Result(name, float("inf"), atol, False, "NaN in different places")
    difference = np.nan_to_num(np.abs(got64 - want64))
    limit = atol + rtol * np.nan_to_num(np.abs(want64))
    share = np.divide(difference, limit, out=np.where(difference > 0, np.inf, 0.0), where=limit > 0)
    worst = np.unravel_index(int(np.argmax(share)), share.shape)
    return Result(name, float(difference[worst]), float(limit[worst]), bool(np.all(difference <= limit)))


def check_equal(name: str, got: Any, want: Any) -> Result:
    """Exact equality (integers, booleans, names); the error counts the elements that differ."""
    got, want = to_numpy(got), to_numpy(want)
    if got.shape != want.shape:
        return Result(name, float("inf"), 0.0, False, f"shape {got.shape}, expected {want.shape}")
    wrong = int(np.sum(got != want))
    return Result(name, float(wrong), 0.0, wrong == 0, f"{wrong} of {got.size} differ" if wrong else "")


def worst(results: Iterable[Result]) -> Result:
    """The result that says most about a case: a failure before a pass, then the largest share of its tolerance."""
    return max(results, key=lambda result: (not result.passed, result.strain))


def leading(got: Any, want: Any) -> Any:
    """The corner of `got` that a case stores: as many entries from the start of every axis as `want` has."""
    return got[tuple(slice(size) for size in want.shape)]


def first_number(text: str) -> float:
    """The limit that a sentence of a tolerance table begins with, as in "1e-4 dB (image 0: ...)"."""
    found = re.search(r"\d+(?:\.\d+)?(?:e[+-]?\d+)?", text)
    if found is None:
        raise Unsupported(f"no tolerance can be read from {text!r}")
    return float(found[0])


def grid_of(sentences: Iterable[str], cells: int) -> tuple[int, int]:
    """Rows and columns of the pooled grid that stands in for a feature network.

    sentences: what the case says, with "pool2d(x, 4x4)" or "pool to 3x3" somewhere. cells: how many there are, which
    decides where it says nothing, if they form a square.
    """
    for text in sentences:
        for rows, columns in re.findall(r"(?<![\dx])(\d+) ?x ?(\d+)(?![\dx])", text):
            if int(rows) * int(columns) == cells:
                return int(rows), int(columns)
    side = math.isqrt(cells)
    if side * side != cells:
        raise Unsupported(f"the case does not say how its {cells} pooled cells are arranged")
    return side, side


def pooled(images: npt.NDArray[Any], grid: tuple[int, int]) -> npt.NDArray[Any]:
    """(N, C, H, W) -> means over a grid of windows, (N, C, rows, columns); windows overlap where a side is no multiple.

    Window i of n covers floor(i size / n) up to ceil((i + 1) size / n): adaptive average pooling.
    """
    rows, columns = (
        [slice(size * i // n, -(-size * (i + 1) // n)) for i in range(n)]
        for size, n in zip(images.shape[2:], grid, strict=True)
    )
    return np.stack([np.stack([images[:, :, r, c].mean(axis=(2, 3)) for c in columns], -1) for r in rows], -2)


_OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Mod: operator.mod,
}


def formula_value(formula: str, variables: Mapping[str, Any]) -> Any:
    """The value of a formula such as "(37 x + (x y mod 97) + 3) mod 256": sums, products and remainders of integers.

    Factors stand beside each other. Raises Unsupported where it holds anything else.
    """
    tokens = re.findall(r"\d+|mod\b|[a-z]|[-+*()]|\S", formula)
    words: list[str] = []
    for token in tokens:
        if words and re.fullmatch(r"\d+|[a-z]|\)", words[-1]) and re.fullmatch(r"\d+|[a-z]|\(", token):
            words.append("*")
        words.append("%" if token == "mod" else token)

    def value(node: ast.expr) -> Any:
        match node:
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
                return _OPERATORS[type(op)](value(left), value(right))
            case ast.Constant(value=int(number)):
                return number
            case ast.Name(id=name) if name in variables:
                return variables[name]
        raise Unsupported(f"the formula {formula!r} holds more than sums, products and remainders")

    try:
        tree = ast.parse(" ".join(words), mode="eval")
    except SyntaxError:
        raise Unsupported(f"the formula {formula!r} cannot be read") from None
    return value(tree.body)
