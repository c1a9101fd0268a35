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
    """Rows of the selection; at most those of the data set. Also used by the request set."""
    selection_seed: Annotated[int, Within(0)] = 42
    """Seed of the permutation that selects. Also used by the request set."""
    image_size: Annotated[int, Within(1)] = 256
    """Side to which real and drawn images are resized before the networks, in pixels."""
    batch_size: Annotated[int, Within(1)] = 32
    """Images per call of the networks."""
