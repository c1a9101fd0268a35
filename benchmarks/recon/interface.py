"""The options and metrics of recon."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from harness.contract.fields import Within
from harness.contract.interface import MetricSpec, ScorerOptions

METRICS = (
    MetricSpec("rfid", "rFID", higher_is_better=False),
    MetricSpec("psnr", "PSNR", higher_is_better=True, unit="dB"),
    MetricSpec("ssim", "SSIM", higher_is_better=True),
    MetricSpec("l1", "L1", higher_is_better=False),
)


@dataclass(frozen=True, kw_only=True)
class Options(ScorerOptions):
    """What `--set recon.NAME=VALUE` may change; the defaults are the published protocol."""

    batch_size: Annotated[int, Within(1)] = 32
    """Images per call of the network."""
    mean_batch: Annotated[int, Within(1)] = 32
    """Batch size of the batch means that L1 and PSNR average, as published."""
    resize: Literal["bicubic", "bilinear"] = "bicubic"
    """How images are resized when `--tokenizer` makes the pairs; bilinear is Open-MAGVIT2's and IBQ's."""
    ema: bool = True
    """Averaged or live weights, when `--tokenizer` makes the pairs."""
