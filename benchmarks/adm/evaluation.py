"""The ADM evaluator's five numbers from Inception features. Pure: no TensorFlow, no images.

What the scorer's two feature stages leave in their folders is all that goes in here, so

    evaluate(Features.read(REFERENCE, SAMPLES), Options(**score["options"]))

gives the recorded numbers again, on a machine with NumPy and SciPy only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from benchmarks.adm.references import Measure, ReferenceSplit, SamplesAre, Split
from harness.contract.digest import is_digest
from harness.contract.errors import BadSamples, UserError
from harness.metrics.distances import Distance, half_precision_squared_distances
from harness.metrics.frechet import Statistics, frechet_distances, statistics
from harness.metrics.inception_score import class_probabilities, inception_score
from harness.metrics.prdc import adm_precision_recall, exact_precision_recall
from harness.scoring.features import read_features
from harness.scoring.screen import Duplicates, check_duplicates_option

Array = npt.NDArray[Any]
DistanceName = Literal["float16", "tensorflow"]
CHOICES = {"distances": DistanceName, "measure": Measure, "reference_split": ReferenceSplit, "samples_are": SamplesAre}
"""The options that are one of a few words."""

STATISTICS_FILE = "statistics.npz"
RADII_FILE = "radii.npy"
EVALUATOR_MEAN = np.float32
"""The evaluator takes the mean in the dtype of the features; the covariance is float64 all the same."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What may be set with `--set adm.<name>=<value>`; the defaults are the published protocol."""

    batch_size: int = 64
    """Images per call of the graph."""
    is_split_size: int = 5_000
    """Images per part of the Inception Score."""
    manifold_k: int = 3
    """The neighbour that sets a ball's radius in precision and recall."""
    distances: DistanceName = "float16"
    """Arithmetic of precision and recall: `float16` (products summed in float32, as GPUs do) or `tensorflow` (float16
    on the installed TensorFlow build; hours for 50,000 images on a CPU)."""
    exact: bool = True
    """Whether precision and recall are also given in exact (float32) arithmetic; not comparable with published ones."""
    measure: Measure = "gfid"
    """`gfid`: samples against the training set. `rfid`: reconstructions of the validation set against that."""
    reference_split: ReferenceSplit = "auto"
    """Of which split of ImageNet the reference is: `train`, `val`, `other`; `auto` goes by digest, else by contents."""
    references: Mapping[str, Split] = field(default_factory=dict)
    """sha256 -> split of the reference archives that are known; kept in benchmark.yaml."""
    samples_are: SamplesAre = "auto"
    """`generated` or `reconstructions`, for this run; `auto` goes by what the sample set says of itself. What a set
    records (`python -m harness.contract adopt --kind`) cannot be overruled here."""
    duplicates: Duplicates = "refuse"
    """What to do with images that stand more than once: `refuse`, or `allow` with a note."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "is_split_size", "manifold_k"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise UserError(f"the option adm.{name} is {value!r}; give a whole number of at least 1.")
        for name, kind in CHOICES.items():
            value, choices = getattr(self, name), get_args(kind)
            if value not in choices:
                raise UserError(f"the option adm.{name} is {value!r}; choose one of {', '.join(choices)}.")
        for sha256, split in self.references.items():
            if not is_digest(sha256) or split not in get_args(Split):
                raise UserError(f"the option adm.references has {sha256}: {split}; give sha256: train, val or other.")
        if not isinstance(self.exact, bool):
            raise UserError(f"the option adm.exact is {self.exact!r}; give true or false.")
        check_duplicates_option("adm", self.duplicates)

    @classmethod
    def from_mapping(cls, given: Mapping[str, Any]) -> Options:
        """Options by name; an unknown name is refused, since a misspelt one would be silent."""
        known = {field.name for field in fields(cls)}
        for name in given:
            if name not in known:
                raise UserError(f"adm has no option {name!r}; its options are {', '.join(sorted(known))}.")
        return cls(**given)

    def as_mapping(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, kw_only=True, eq=False)
class Features:
    """Everything the metrics are computed from. Arrays may be memory-mapped."""

    sample_pool: Array
    """(N, D) float32, `pool_3` of the samples in request order."""
    sample_spatial: Array
    """(N, S) float32, the first 7 channels of `mixed_6/conv`, flattened (y, x, channel)."""
    reference_pool: Array
    """(M, D) float32, of the reference's images; for precision and recall, whatever statistics are stored."""
    reference_pool_statistics: Statistics
    reference_spatial_statistics: Statistics
    classifier: Array
    """(D, C) float32, weights of the last layer, which has no bias."""
    reference_radii: Array | None = None
    """(M,) squared radii of the reference's balls, where they are known already."""

    @classmethod
    def read(cls, reference: Path, samples: Path) -> Features:
        """Read the folders of the two feature stages; the per-image arrays stay on disk until they are needed."""
        with np.load(reference / STATISTICS_FILE, allow_pickle=False) as archive:
            pool = Statistics(mean=archive["mu"], covariance=archive["sigma"])
            spatial = Statistics(mean=archive["mu_s"], covariance=archive["sigma_s"])
        radii = reference / RADII_FILE
        return cls(
            sample_pool=read_features(samples / "pool.npy"),
            sample_spatial=read_features(samples / "spatial.npy"),
            reference_pool=read_features(reference / "pool.npy"),
            reference_pool_statistics=pool,
            reference_spatial_statistics=spatial,
            classifier=read_features(samples / "classifier.npy"),
            reference_radii=np.load(radii, allow_pickle=False) if radii.exists() else None,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """The metrics, and for each sample whether it lies in the reference manifold."""

    gfid: float
    sfid: float
    inception_score: float
    precision: float
    recall: float
    precision_exact: float | None
    recall_exact: float | None
    in_reference_manifold: Array
    """(N,) bool; its mean is the precision."""


def write_statistics(folder: Path, pool: Statistics, spatial: Statistics) -> None:
    """Write the reference's statistics under the keys that reference archives use."""
    np.savez(
        folder / STATISTICS_FILE,
        mu=pool.mean,
        sigma=pool.covariance,
        mu_s=spatial.mean,
        sigma_s=spatial.covariance,
    )


def evaluator_statistics(features: Array) -> Statistics:
    """Statistics as the evaluator takes them: the mean in float32, the covariance in float64."""
    return statistics(features, mean_dtype=EVALUATOR_MEAN)


def evaluate(features: Features, options: Options, distance: Distance | None = None) -> Evaluation:
    """All metrics. `distance` takes the place of the float16 arithmetic of precision and recall (TensorFlow's own).

    Raises BadSamples when there are too few images for a covariance or a neighbourhood.
    """
    count, needed = len(features.sample_pool), options.manifold_k + 1
    if count < needed:
        raise BadSamples(f"adm needs at least {needed} images, the sample set has {count}; sample more with --limit.")
    reference, sample, k = features.reference_pool, features.sample_pool, options.manifold_k
    inside = adm_precision_recall(
        reference,
        sample,
        k=k,
        distance=distance or half_precision_squared_distances,
        reference_radii=features.reference_radii,
    )
    exact = exact_precision_recall(reference, sample, k=k) if options.exact else None
    gfid, sfid = frechet_distances(
        [
            (features.reference_pool_statistics, sample),
            (features.reference_spatial_statistics, features.sample_spatial),
        ],
        mean_dtype=EVALUATOR_MEAN,
    )
    return Evaluation(
        gfid=gfid.value,
        sfid=sfid.value,
        inception_score=inception_score(
            class_probabilities(sample, features.classifier), split_size=options.is_split_size
        ),
        precision=inside.precision,
        recall=inside.recall,
        precision_exact=None if exact is None else exact.precision,
        recall_exact=None if exact is None else exact.recall,
        in_reference_manifold=inside.reference_balls > 0,
    )
