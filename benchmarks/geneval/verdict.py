"""GenEval's decision about one image: detections and a prompt's clauses in, right or wrong and the reasons out.

Pure: NumPy alone, no detector. The detections are a `Detections` per class; the colour classifier is a function.

Coordinates are pixels, (x1, y1, x2, y2); boxes are (n, 5) float32 with the score last. All arithmetic on boxes is in
float32, as the detector returns them, which matters at the thresholds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.geneval.colors import COLORS
from benchmarks.geneval.interface import Options

Array = npt.NDArray[Any]

_COINCIDE = 1e-3
"""Smaller offsets count as none."""
_DIRECTION = 0.5
"""Share of the offset that must be along an axis for a relation along it."""


@dataclass(frozen=True, eq=False)
class Detections:
    """What was found of one class, best first."""

    boxes: Array
    """(n, 5) float32: x1, y1, x2, y2, score."""
    rows: tuple[int, ...]
    """Index of each one among the detector's boxes (and masks) of the class."""

    def __len__(self) -> int:
        return len(self.rows)

    def first(self, count: int) -> Detections:
        """The best `count`."""
        return Detections(self.boxes[:count], self.rows[:count])


ClassifyColors = Callable[[str, Sequence[int]], Sequence[str]]
"""(class name, the detector's rows) -> a colour for each."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether an image shows what its prompt asks for."""

    correct: bool
    reasons: tuple[str, ...]
    """Why not, clause by clause."""
    details: Mapping[str, list[list[float]]]
    """What was found: class -> [x1, y1, x2, y2, score], best first."""


def judge(
    metadata: Mapping[str, Any], boxes: Mapping[str, Array], classify_colors: ClassifyColors, options: Options
) -> Verdict:
    """Decide about one image.

    Args:
        metadata: the prompt's line: `tag`, `include` clauses (class, count, perhaps color or position), and perhaps
            `exclude` clauses (class, count).
        boxes: per class, everything the detector returned: (n, 5) float32.
        classify_colors: called only for objects whose clause names a colour.
        options: thresholds.
    """
    threshold = options.threshold_of(metadata["tag"])
    found = {name: select(class_boxes, threshold, options) for name, class_boxes in boxes.items()}
    found = {name: detections for name, detections in found.items() if len(detections)}
    reasons: list[str] = []
    targets: list[Detections | None] = []
    for clause in metadata.get("include", []):
        matched, problem = _include(clause, found, targets, classify_colors, options)
        targets.append(matched)
        reasons += [problem] if problem else []
    for clause in metadata.get("exclude", []):
        count = _count_of(clause["class"], found)
        if count >= clause["count"]:
            reasons.append(f"expected {clause['class']}<{clause['count']}, found {count}")
    details = {name: detections.boxes.astype(np.float64).tolist() for name, detections in found.items()}
    return Verdict(correct=not reasons, reasons=tuple(reasons), details=details)


# --- which detections count ------------------------------------------------------------------------------------------


def select(boxes: Array, threshold: float, options: Options) -> Detections:
    """The detections of one class that count: scores strictly above the threshold, best first, at most `max_objects`.

    Threshold and scores are compared in float32, so a score of exactly the threshold is dropped.
    """
    boxes = np.asarray(boxes, np.float32).reshape(-1, 5)
    order = np.argsort(-boxes[:, 4], kind="stable")
    rows = [int(row) for row in order if boxes[row, 4] > np.float32(threshold)][: options.max_objects]
    if options.max_overlap != 1.0:
        rows = _without_overlaps(boxes, rows, options.max_overlap)
    return Detections(boxes[rows], tuple(rows))


def _without_overlaps(boxes: Array, rows: Sequence[int], max_overlap: float) -> list[int]:
    kept: list[int] = []
    for row in rows:
        if all(intersection_over_union(boxes[row], boxes[other]) < max_overlap for other in kept):
            kept.append(row)
    return kept


def intersection_over_union(a: Array, b: Array) -> float:
    """IoU of two boxes whose last pixel belongs to them: a side is x2 - x1 + 1."""
    intersection = _area([max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])])
    union = _area(a) + _area(b) - intersection
    return intersection / union if union else 0.0


def _area(box: Sequence[float] | Array) -> float:
    return max(float(box[2] - box[0]) + 1.0, 0.0) * max(float(box[3] - box[1]) + 1.0, 0.0)


def _count_of(name: str, found: Mapping[str, Detections]) -> int:
    return len(found[name]) if name in found else 0


# --- clauses ---------------------------------------------------------------------------------------------------------


def _include(
    clause: Mapping[str, Any],
    found: Mapping[str, Detections],
    targets: Sequence[Detections | None],
    classify_colors: ClassifyColors,
    options: Options,
) -> tuple[Detections | None, str]:
    """(what later clauses may refer to, why the clause fails); one of the two is empty."""
    name, count = clause["class"], clause["count"]
    if _count_of(name, found) < count:
        return None, f"expected {name}>={count}, found {_count_of(name, found)}"
    objects = found[name].first(count)
    if "color" in clause:
        problem = _color_problem(name, count, clause["color"], classify_colors(name, objects.rows))
        if problem:
            return None, problem
    if clause.get("position"):
        relation, index = clause["position"]
        problem = _position_problem(name, relation, objects, targets[index], options)
        if problem:
            return None, problem
    return objects, ""


def _color_problem(name: str, count: int, color: str, seen: Sequence[str]) -> str:
    hits = sum(other == color for other in seen)
    if hits >= count:
        return ""
    counts = ", ".join(f"{seen.count(other)} {other}" for other in COLORS if other in seen)
    return f"expected {color} {name}>={count}, found {hits} {color}; and {counts}"


def _position_problem(
    name: str, relation: str, objects: Detections, target: Detections | None, options: Options
) -> str:
    if target is None:
        return f"no target for {name} to be {relation}"
    for box in objects.boxes:
        for other in target.boxes:
            there_is = relations(box, other, options.position_threshold)
            if relation not in there_is:
                return f"expected {name} {relation} target, found {' and '.join(there_is)} target"
    return ""


def relations(a: Array, b: Array, threshold: float) -> tuple[str, ...]:
    """The position of `a` relative to `b`: up to two of "left of", "right of", "above", "below".

    The offset of the centres, less `threshold` of both sides along each axis, must have more than half of the whole
    offset's length along an axis.
    """
    corners_a, corners_b = (np.asarray(box[:4], np.float32).reshape(2, 2) for box in (a, b))
    offset = corners_a.mean(axis=0) - corners_b.mean(axis=0)
    sides = np.abs(corners_a[1] - corners_a[0]) + np.abs(corners_b[1] - corners_b[0])
    reduced = np.maximum(np.abs(offset) - np.float32(threshold) * sides, 0) * np.sign(offset)
    if np.all(np.abs(reduced) < _COINCIDE):
        return ()
    x, y = reduced / np.linalg.norm(offset)
    holds = {
        "left of": x < -_DIRECTION,
        "right of": x > _DIRECTION,
        "above": y < -_DIRECTION,
        "below": y > _DIRECTION,
    }
    return tuple(relation for relation, is_so in holds.items() if is_so)
