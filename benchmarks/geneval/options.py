"""The settings of GenEval's decision, with the original's defaults, and the ten colours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from harness.contract.errors import UserError

COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
"""In the order of the colour classifier's columns."""

Backend = Literal["auto", "pytorch", "compiled"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """What `--set geneval.NAME=VALUE` may change."""

    threshold: float = 0.3
    """A detection counts when its score is above it."""
    counting_threshold: float = 0.9
    """The same for the task "counting", where a doubtful extra object would decide."""
    max_objects: int = 16
    """Best detections of a class that count."""
    max_overlap: float = 1.0
    """Drop a detection whose IoU with a better one of its class reaches this; 1 drops none."""
    position_threshold: float = 0.1
    """Share of both objects' sides by which they must be apart to be left of, right of, above, below."""
    background: str = "#999"
    """What replaces pixels outside an object's mask before its colour is judged; "original" keeps them."""
    crop: bool = True
    """Judge the colour on the object's box, not on the whole image."""
    backend: Backend = "auto"
    """Who computes deformable attention: "pytorch", "compiled" (needs full mmcv); "auto": compiled if it is there."""
    clip_precision: Literal["float32", "autocast"] = "float32"
    """How the colour classifier multiplies: "autocast" is half precision, on GPUs alone, as the original does it."""

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Options:
        """Options with `values` for defaults.

        Raises:
            UserError: there is no such option, or it cannot have this value.
        """
        known = {field.name: field for field in fields(cls)}
        for name in values:
            if name not in known:
                raise UserError(f"geneval has no option {name!r}; it has: {', '.join(known)}.")
        options = cls(**values)
        options._check()
        return options

    def _check(self) -> None:
        for name in ("threshold", "counting_threshold", "max_overlap", "position_threshold"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
                raise UserError(f"geneval: {name} is {value!r}, which is not within 0..1.")
        if type(self.max_objects) is not int or self.max_objects < 1:
            raise UserError(f"geneval: max_objects is {self.max_objects!r}, which is not a whole number of at least 1.")
        if self.backend not in get_args(Backend):
            raise UserError(f"geneval: backend is {self.backend!r}; choose one of {', '.join(get_args(Backend))}.")
        if self.clip_precision not in ("float32", "autocast"):
            raise UserError(f"geneval: clip_precision is {self.clip_precision!r}; choose float32 or autocast.")
        if not isinstance(self.crop, bool):
            raise UserError(f"geneval: crop is {self.crop!r}, which is not true or false.")

    def threshold_of(self, tag: str) -> float:
        """The threshold of a task."""
        return self.counting_threshold if tag == "counting" else self.threshold

    def as_mapping(self) -> dict[str, Any]:
        """For the record."""
        return asdict(self)
