"""What every conformance area shares: reading a golden case, comparing, and the result of a comparison."""

from __future__ import annotations

import json
from collections.abc import Iterable
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
