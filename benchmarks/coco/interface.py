"""The options and metrics of coco."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from harness.contract.fields import Within
from harness.contract.interface import MetricSpec, ScreenedOptions

METRICS = (
    MetricSpec("fid", "FID", higher_is_better=False),
    MetricSpec("clip_score", "CLIPScore", higher_is_better=True),
)


@dataclass(frozen=True, kw_only=True)
class Options(ScreenedOptions):
    """What `--set coco.NAME=VALUE` may change; the defaults are the published protocol."""

    num_samples: Annotated[int, Within(1)] = 30_000
    """Rows of the selection; capped to what the data set has. The request set takes it too."""
    selection_seed: Annotated[int, Within(0)] = 42
    """Of the permutation that selects. The request set takes it too."""
    image_size: Annotated[int, Within(1)] = 256
    """Side to which both sides are brought before the networks see them."""
    batch_size: Annotated[int, Within(1)] = 32
    """Images per call of the networks."""
