"""Reconstruction metrics from per-image values and features. Pure: no network, no images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from harness.contract.errors import BadSamples, UserError
from harness.metrics.frechet import frechet_distance, statistics
from harness.metrics.image import mean_of_batch_means

Array = npt.NDArray[Any]
Resize = Literal["bicubic", "bilinear"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """What may be set with `--set recon.<name>=<value>`; the defaults are the published protocol."""

    batch_size: int = 32
    """Images per call of the network."""
    mean_batch: int = 32
    """Images in the batches whose means L1 and PSNR are averaged over, as published."""
    resize: Resize = "bicubic"
    """How images are brought to size when `--tokenizer` makes the pairs; bilinear is Open-MAGVIT2's and IBQ's."""
    ema: bool = True
    """Averaged or live weights, when `--tokenizer` makes the pairs."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "mean_batch"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise UserError(f"the option recon.{name} is {value!r}; give a whole number of 1 or more.")
        if self.resize not in get_args(Resize):
            raise UserError(f"the option recon.resize is {self.resize!r}; choose bicubic or bilinear.")
        if not isinstance(self.ema, bool):
            raise UserError(f"the option recon.ema is {self.ema!r}; give true or false.")

    @classmethod
    def from_mapping(cls, given: Mapping[str, Any]) -> Options:
        """Options by name; an unknown name is refused, since a misspelt one would be silent."""
        known = {field.name for field in fields(cls)}
        for name in given:
            if name not in known:
                raise UserError(f"recon has no option {name!r}; its options are {', '.join(sorted(known))}.")
        return cls(**given)

    def as_mapping(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, kw_only=True, eq=False)
class Measured:
    """Everything the metrics are computed from, one row per pair."""

    l1: Array
    psnr: Array
    ssim: Array
    originals: Array
    """(N, 2048) float32 Inception features."""
    reconstructions: Array


def evaluate(measured: Measured, options: Options) -> dict[str, float]:
    """L1 and PSNR as means of batch means (a short last batch weighs as much as a full one, as published), SSIM as the
    plain mean, rFID of the features with float32 means. Raises BadSamples below two pairs."""
    if len(measured.l1) < 2:
        raise BadSamples(f"recon needs at least 2 pairs, there are {len(measured.l1)}; reconstruct more images.")
    fitted = (
        statistics(features, mean_dtype=np.float32) for features in (measured.originals, measured.reconstructions)
    )
    return {
        "rfid": frechet_distance(*fitted).value,
        "psnr": mean_of_batch_means(measured.psnr, options.mean_batch),
        "ssim": float(measured.ssim.mean()),
        "l1": mean_of_batch_means(measured.l1, options.mean_batch),
    }


def batch_means_interval(values: Array, batch: int, *, num_resamples: int = 1_000) -> tuple[float, float]:
    """95 % percentile bootstrap of `mean_of_batch_means`, about that very value.

    Images (N,) are resampled together with the weight that each has in it, 1 / (size of its batch), and their weighted
    mean is taken; of the images as they are that is the value itself. Where all batches are full, it is the plain mean.
    """
    starts = np.arange(len(values)) // batch * batch
    weights = 1.0 / np.minimum(batch, len(values) - starts)
    generator = np.random.default_rng(0)
    draws = (generator.integers(len(values), size=len(values)) for _ in range(num_resamples))
    low, high = np.quantile([np.average(values[rows], weights=weights[rows]) for rows in draws], [0.025, 0.975])
    return float(low), float(high)
