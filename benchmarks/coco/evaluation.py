"""Options, and COCO FID from features. Pure: no network, no images, no parquet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.contract.errors import BadSamples, UserError
from harness.metrics.frechet import frechet_distance, statistics
from harness.scoring.screen import Duplicates, check_duplicates_option

Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Options:
    """What may be set with `--set coco.<name>=<value>`; the defaults are the published protocol."""

    num_samples: int = 30_000
    """Rows of the selection; capped to what the data set has. The same number is in `requests` of benchmark.yaml."""
    selection_seed: int = 42
    """Of the permutation that selects; the same is in `requests`."""
    image_size: int = 256
    """Side to which both sides are brought before the networks see them."""
    batch_size: int = 32
    """Images per call of the networks."""
    duplicates: Duplicates = "refuse"
    """What to do with images that stand more than once: `refuse`, or `allow` with a note."""

    def __post_init__(self) -> None:
        for name in ("num_samples", "selection_seed", "image_size", "batch_size"):
            value, lowest = getattr(self, name), 0 if name == "selection_seed" else 1
            if not isinstance(value, int) or isinstance(value, bool) or value < lowest:
                raise UserError(f"the option coco.{name} is {value!r}; give a whole number of {lowest} or more.")
        check_duplicates_option("coco", self.duplicates)

    @classmethod
    def from_mapping(cls, given: Mapping[str, Any]) -> Options:
        """Options by name; an unknown name is refused, since a misspelt one would be silent."""
        known = {field.name for field in fields(cls)}
        for name in given:
            if name not in known:
                raise UserError(f"coco has no option {name!r}; its options are {', '.join(sorted(known))}.")
        return cls(**given)

    def as_mapping(self) -> dict[str, Any]:
        return asdict(self)


def fid(reference: Array, sample: Array) -> float:
    """Frechet distance of (N, 2048) float32 features; the means are taken in float32, as pytorch-fid does.

    Raises BadSamples below two images.
    """
    if len(sample) < 2:
        raise BadSamples(f"coco needs at least 2 images, the sample set has {len(sample)}; draw more.")
    fitted = (statistics(features, mean_dtype=np.float32) for features in (reference, sample))
    return frechet_distance(*fitted).value
