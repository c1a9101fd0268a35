"""Training logs read back as curves.

A training log is JSON lines, one object per logged update: {"step": 12, "phase": "e2e", "ce_loss": 8.1}.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.contract.errors import UserError
from harness.report.formats import format_value


@dataclass(frozen=True, kw_only=True, eq=False)
class Curve:
    """One logged quantity over training."""

    steps: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    """(N,) rising: optimizer steps, or the x axis that `read_curve` was given."""
    values: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    """(N,) may hold NaN where the log does."""
    end: float = 0.0
    """The last step of the log, whether or not the quantity was logged there."""
    unreadable_lines: int = 0
    """Lines before the last that are not JSON objects; a torn last line is the usual end of a killed run."""

    def __len__(self) -> int:
        return len(self.steps)

    @property
    def last(self) -> float:
        """The last smoothed value; NaN for an empty curve."""
        smoothed = smooth(self.values)
        finite = smoothed[np.isfinite(smoothed)]
        return float(finite[-1]) if len(finite) else math.nan


def read_curve(log_path: Path, key: str, *, x: str = "step", phase: str | None = None) -> Curve:
    """Read `key` from a training log, against `x`, optionally for one phase only.

    Lines without the key are skipped. A resumed run logs some steps twice: the later line counts, since that is the
    update that shaped the weights. A torn last line is ignored.

    Raises:
        UserError: there is no such log.
    """
    points: dict[float, float] = {}
    end, unreadable = 0.0, 0
    for line, is_last in _lines(log_path):
        entry = _entry(line)
        if entry is None:
            unreadable += not is_last
        elif phase in (None, entry.get("phase")):
            place = _number(entry.get(x))
            end = max(end, place)  # a NaN leaves it unchanged
            if key in entry and math.isfinite(place):
                points[place] = _number(entry[key])
    steps = np.array(sorted(points), dtype=np.float64)
    values = np.array([points[step] for step in steps], dtype=np.float64)
    return Curve(steps=steps, values=values, end=end, unreadable_lines=unreadable)


def joined(curves: Sequence[Curve]) -> Curve:
    """Stages one after another: the steps of each continue where the previous log ended."""
    ends = np.cumsum([0.0, *(curve.end for curve in curves)])
    return Curve(
        steps=np.concatenate([np.empty(0), *(curve.steps + end for curve, end in zip(curves, ends, strict=False))]),
        values=np.concatenate([np.empty(0), *(curve.values for curve in curves)]),
        end=float(ends[-1]),
        unreadable_lines=sum(curve.unreadable_lines for curve in curves),
    )


def smooth(values: NDArray[np.float64], span: int | None = None) -> NDArray[np.float64]:
    """Weighted mean around every point, weights falling exponentially to both sides, so that the line does not lag.

    At the start, where losses fall steeply, a point averages as far to the right as there is to the left, and the first
    one stays as logged; at the end it averages only earlier points.

    Args:
        values: (N,) float; NaN and infinities are skipped.
        span: about how many points on each side count; None takes `smoothing_span(N)`, 1 returns the finite values.

    Returns:
        (N,) float; NaN only where nothing near is finite.
    """
    keep = 1 - 2 / ((smoothing_span(len(values)) if span is None else span) + 1)
    finite = np.isfinite(values)
    totals = _sum_around(np.where(finite, values, 0.0), keep)
    weights = _sum_around(finite.astype(np.float64), keep)
    return np.divide(totals, weights, out=np.full(len(values), math.nan), where=weights > 1e-9)


def _sum_around(values: NDArray[np.float64], keep: float) -> NDArray[np.float64]:
    """Sum over j from 0 to 2i of keep^|i - j| values[j], for every i."""
    forward, backward = values.copy(), values.copy()
    for i in range(1, len(values)):
        forward[i] += keep * forward[i - 1]
        backward[-1 - i] += keep * backward[-i]
    inner = np.arange(len(values) // 2)
    right = backward.copy()
    right[inner] -= keep ** (inner + 1) * backward[2 * inner + 1]
    return forward + right - values


def smoothing_span(num_points: int) -> int:
    """A twenty-fifth of the curve removes the noise and keeps its shape; short curves are not smoothed."""
    return 1 if num_points < 25 else max(5, num_points // 25)


def step_reaching(curve: Curve, target: float) -> float | None:
    """The first step at which the smoothed curve is at or below `target`; None if it never is."""
    reached = np.flatnonzero(smooth(curve.values) <= target)
    return float(curve.steps[reached[0]]) if len(reached) else None


def head_start(label: str, curve: Curve, baseline_label: str, baseline: Curve, quantity: str) -> str:
    """One sentence on how much sooner, if at all, a falling curve reaches the value at which the baseline ended."""
    target, end = baseline.last, float(baseline.steps[-1]) if len(baseline) else math.nan
    if not len(curve) or math.isnan(target):
        return ""
    arrival = step_reaching(curve, target)
    goal = f"the {quantity} that {baseline_label} ends with ({format_value(target)} at step {end:,.0f})"
    if arrival is None:
        return f"{label} does not reach {goal}; it ends at {format_value(curve.last)}."
    if arrival < end:
        return f"{label} reaches {goal} at step {arrival:,.0f}, {end / arrival:.1f} times sooner."
    return f"{label} reaches {goal} no sooner, at step {arrival:,.0f}."


def _lines(log_path: Path) -> list[tuple[str, bool]]:
    try:
        lines = log_path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise UserError(
            f"Cannot read the training log {log_path} ({error.strerror}): name the log.jsonl of a training run."
        ) from error
    return [(line, index == len(lines) - 1) for index, line in enumerate(lines) if line.strip()]


def _entry(line: str) -> dict[str, object] | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None


def _number(value: object) -> float:
    """A logged value as float; null and words (strict JSON has no NaN) count as not a number."""
    return float(value) if isinstance(value, (int, float)) else math.nan
