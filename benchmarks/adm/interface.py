"""The options and metrics of adm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from harness.contract.digest import is_digest
from harness.contract.fields import Within
from harness.contract.interface import MetricSpec, ScreenedOptions

Backend = Literal["tensorflow", "torch"]
DistanceName = Literal["float16", "tensorflow"]
Measure = Literal["gfid", "rfid"]
Split = Literal["train", "val", "other"]
ReferenceSplit = Literal["auto", "train", "val", "other"]
SamplesAre = Literal["auto", "generated", "reconstructions"]

METRICS = (
    MetricSpec("gfid", "gFID", higher_is_better=False),
    MetricSpec("sfid", "sFID", higher_is_better=False),
    MetricSpec("inception_score", "IS", higher_is_better=True),
    MetricSpec("precision", "Precision", higher_is_better=True),
    MetricSpec("recall", "Recall", higher_is_better=True),
    # Without the evaluator's rounding to float16: more exact, but not comparable with published values.
    MetricSpec("precision_exact", "Precision, exact", higher_is_better=True),
    MetricSpec("recall_exact", "Recall, exact", higher_is_better=True),
    # Instead of gFID with `--set adm.measure=rfid`: reconstructions against the validation set.
    MetricSpec("rfid", "rFID", higher_is_better=False),
)


@dataclass(frozen=True, kw_only=True)
class Options(ScreenedOptions):
    """What `--set adm.NAME=VALUE` may change; the defaults are the published protocol."""

    batch_size: Annotated[int, Within(1)] = 64
    """Images per call of the graph."""
    backend: Backend = "tensorflow"
    """What evaluates the frozen graph: `tensorflow`, as published, on the CPU; or `torch`, the same arithmetic, on a
    GPU where there is one."""
    is_split_size: Annotated[int, Within(1)] = 5_000
    """Images per part of the Inception Score."""
    manifold_k: Annotated[int, Within(1)] = 3
    """The neighbour that sets a ball's radius in precision and recall."""
    distances: DistanceName = "float16"
    """Arithmetic of precision and recall: `float16` (products summed in float32, as GPUs do) or `tensorflow` (float16
    on the installed TensorFlow build; hours for 50,000 images on a CPU)."""
    exact: bool = False
    """Whether precision and recall are also computed without rounding to float16: not comparable with published ones,
    takes minutes for 50,000 images."""
    measure: Measure = "gfid"
    """`gfid`: samples against the training set. `rfid`: reconstructions of the validation set against that set."""
    reference_split: ReferenceSplit = "auto"
    """ImageNet split of the reference: `train`, `val`, `other`; `auto` determines it by digest, else by contents."""
    references: Mapping[str, Split] = field(default_factory=dict)
    """sha256 -> split of reference archives that are known. Nobody publishes the digests; what the public archives hold
    is: VIRTUAL_imagenet64_labeled.npz, VIRTUAL_imagenet128_labeled.npz, VIRTUAL_imagenet256_labeled.npz and
    VIRTUAL_imagenet512.npz each have 10,000 images and the statistics of the training set. The split of an
    unlisted archive follows from these facts, or from `reference_split`."""
    samples_are: SamplesAre = "auto"
    """`generated` or `reconstructions`, for this run; `auto` uses the kind that the sample set records. A recorded kind
    (`python -m harness.contract adopt --kind`) cannot be overridden here."""

    def __post_init__(self) -> None:
        if self.backend == "torch" and self.distances == "tensorflow":
            raise ValueError("distances=tensorflow needs TensorFlow; leave out backend=torch or distances=tensorflow")
        for sha256, split in self.references.items():
            if not is_digest(sha256):
                raise ValueError(f"references has {sha256}: {split}; give sha256: train, val or other")
