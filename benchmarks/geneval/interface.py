"""The options and metrics of geneval and geneval_long."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from harness.contract.fields import Within
from harness.contract.interface import MetricSpec, ScorerOptions, Share

Backend = Literal["auto", "pytorch", "compiled"]

METRICS = (
    MetricSpec("geneval", "GenEval", higher_is_better=True),
    MetricSpec("task_score", "Share of right images", higher_is_better=True),
    MetricSpec("correct_images", "Right images", higher_is_better=True),
    MetricSpec("correct_prompts", "Prompts with a right image", higher_is_better=True),
)


@dataclass(frozen=True, kw_only=True)
class Options(ScorerOptions):
    """What `--set geneval.NAME=VALUE` may change; the defaults are the original's."""

    threshold: Annotated[float, Share()] = 0.3
    """A detection counts when its score is above this."""
    counting_threshold: Annotated[float, Share()] = 0.9
    """The same for the task "counting", where a doubtful extra object would change the verdict."""
    max_objects: Annotated[int, Within(1)] = 16
    """Best detections of a class that count."""
    max_overlap: Annotated[float, Share()] = 1.0
    """Drop a detection whose IoU with a better one of its class reaches this; 1 drops none."""
    position_threshold: Annotated[float, Share()] = 0.1
    """Share of both objects' sides by which they must be apart for left of, right of, above, below."""
    background: str = "#999"
    """What replaces pixels outside an object's mask before its colour is judged; "original" keeps them."""
    crop: bool = True
    """Judge the colour on the object's box, not on the whole image."""
    backend: Backend = "auto"
    """Who computes deformable attention: "pytorch", "compiled" (needs full mmcv); "auto": compiled if it is there."""
    clip_precision: Literal["float32", "autocast"] = "float32"
    """Precision of the colour classifier: "autocast" is half precision, on GPUs only, as in the original."""

    def threshold_of(self, tag: str) -> float:
        """The threshold of a task."""
        return self.counting_threshold if tag == "counting" else self.threshold
