"""The options and metrics of gpic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from harness.contract.fields import Within
from harness.contract.interface import MetricSpec, ScreenedOptions

METRICS = (
    MetricSpec("fd", "FD-DINOv2", higher_is_better=False),
    MetricSpec("fd_mu", "FD, mean term", higher_is_better=False),
    MetricSpec("fd_sigma", "FD, covariance term", higher_is_better=False),
    MetricSpec("mmd", "MMD", higher_is_better=False),
    MetricSpec("precision", "Precision", higher_is_better=True),
    MetricSpec("recall", "Recall", higher_is_better=True),
    MetricSpec("density", "Density", higher_is_better=True),
    MetricSpec("coverage", "Coverage", higher_is_better=True),
)


@dataclass(frozen=True, kw_only=True)
class Options(ScreenedOptions):
    """What `--set gpic.NAME=VALUE` may change; the defaults are the published protocol."""

    batch_size: Annotated[int, Within(1)] = 64
    """Images per call of the network."""
    prdc_k: Annotated[int, Within(1)] = 5
    """The neighbour that sets a ball's radius."""
    prdc_cap: Annotated[int, Within(1)] = 10_000
    """Images of each set that PRDC uses, at most; from larger sets they are drawn at random."""
    mmd_subsets: Annotated[int, Within(1)] = 100
    """Pairs of subsets whose MMD is averaged."""
    mmd_subset_size: Annotated[int, Within(1)] = 1_000
    """Images of each set in one subset, at most."""
    seed: Annotated[int, Within(0)] = 0
    """Seed of the random draws of MMD and PRDC."""
