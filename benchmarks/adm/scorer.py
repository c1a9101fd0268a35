"""ADM ImageNet benchmark: sample set in, gFID, sFID, Inception Score, precision and recall out.

Everything that is arithmetic is in `evaluation.py`; here images become features, and features become files. The
features stay beside `score.json`, so the numbers can be computed again without TensorFlow.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.adm.evaluation import (
    Evaluation,
    Features,
    Options,
    evaluate,
    evaluator_statistics,
    write_statistics,
)
from benchmarks.adm.inception_graph import InceptionGraph, TensorFlowDistances
from harness.contract.digest import sha256_file
from harness.contract.errors import BadSamples, MissingAsset
from harness.contract.npz import npz_names, open_npz_member, read_npz_array
from harness.contract.progress import Progress
from harness.contract.record import Metric, ScoreRecord
from harness.contract.scorer import ScoreJob, describe_environment, run_scorer
from harness.metrics.frechet import Statistics

Array = npt.NDArray[Any]

VERSION = 1
GRAPH = "adm-inception-graph"
REFERENCE = "adm-imagenet256-reference"
FULL_COUNT = 50_000

LABELS = {
    "gfid": ("gFID", False),
    "sfid": ("sFID", False),
    "inception_score": ("IS", True),
    "precision": ("Precision", True),
    "recall": ("Recall", True),
}
"""Metric -> how it is printed, and whether higher is better."""


class Stopwatch:
    """Seconds by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - started, 3)


def score(job: ScoreJob) -> ScoreRecord:
    options = Options.from_mapping(job.options)
    if len(job.samples) <= options.manifold_k:
        raise BadSamples(
            f"{job.samples.folder}: holds {len(job.samples)} images, adm needs more than {options.manifold_k}; "
            "draw more samples."
        )
    graph_path, reference_path = job.assets.file(GRAPH), job.assets.file(REFERENCE)
    folder = job.out / "features"
    folder.mkdir(exist_ok=True)
    watch = Stopwatch()

    graph = InceptionGraph(graph_path)
    with watch.stage("sample_features"):
        extract(
            graph, job.samples.batches(options.batch_size), folder, "sample", job.progress(len(job.samples), "images")
        )
    with watch.stage("reference_features"):
        pool, spatial = extract_reference(graph, reference_path, folder, options, job)
    write_statistics(folder, pool, spatial)
    np.save(folder / "classifier.npy", graph.classifier)
    graph.close()

    with watch.stage("metrics"):
        distance = TensorFlowDistances() if options.distances == "tensorflow" else None
        evaluation = evaluate(Features.read(folder), options, distance)

    job.items.extend(items(job, evaluation))
    return ScoreRecord(
        benchmark="adm",
        benchmark_version=VERSION,
        metrics=metrics(evaluation),
        digests={f"asset:{GRAPH}": sha256_file(graph_path), f"asset:{REFERENCE}": sha256_file(reference_path)},
        environment=describe_environment(["scipy", "tensorflow-cpu"]),
        timings_s=watch.seconds,
        options=options.as_mapping(),
        notes=notes(len(job.samples), options, evaluation),
    )


def extract(graph: InceptionGraph, batches: Iterable[Array], folder: Path, role: str, progress: Progress) -> None:
    """Write `<role>_pool.npy` and `<role>_spatial.npy` batch by batch; images are never all in memory."""
    pool: Array | None = None
    spatial: Array | None = None
    start = 0
    for images_u8 in batches:
        pool_batch, spatial_batch = graph.features(images_u8)
        if pool is None or spatial is None:
            pool = _new_array(folder / f"{role}_pool.npy", progress.total, pool_batch.shape[1])
            spatial = _new_array(folder / f"{role}_spatial.npy", progress.total, spatial_batch.shape[1])
        stop = start + len(images_u8)
        pool[start:stop], spatial[start:stop] = pool_batch, spatial_batch
        start = stop
        progress.advance(len(images_u8))


def extract_reference(
    graph: InceptionGraph, path: Path, folder: Path, options: Options, job: ScoreJob
) -> tuple[Statistics, Statistics]:
    """Features of the reference's images, and its statistics: those stored in the archive, or else those of its images.

    An archive that holds `mu` holds statistics of the whole data set, of which `arr_0` is a part; they then stand for
    gFID and sFID, and `arr_0` for precision and recall only.
    """
    with open_npz_member(path, "arr_0", error=MissingAsset) as images:
        if images.dtype != np.uint8 or len(images.shape) != 4 or images.shape[3] != 3:
            raise MissingAsset(
                f"{path}: arr_0 is {images.dtype} {images.shape}, a reference archive holds uint8 (N, H, W, 3); "
                f"fetch it again: harness assets pull {REFERENCE}"
            )
        if images.shape[0] <= options.manifold_k:
            raise MissingAsset(
                f"{path}: holds {images.shape[0]} images, precision and recall need more than {options.manifold_k}; "
                "take a larger reference archive."
            )
        progress = job.progress(images.shape[0], "reference images")
        extract(graph, images.batches(options.batch_size), folder, "reference", progress)

    if "mu" in npz_names(path, error=MissingAsset):
        mu, sigma, mu_s, sigma_s = (
            read_npz_array(path, key, error=MissingAsset) for key in ("mu", "sigma", "mu_s", "sigma_s")
        )
        try:
            return Statistics(mean=mu, covariance=sigma), Statistics(mean=mu_s, covariance=sigma_s)
        except ValueError as error:
            raise MissingAsset(f"{path}: {error}; fetch it again: harness assets pull {REFERENCE}") from error
    pool, spatial = (np.load(folder / f"reference_{part}.npy", mmap_mode="r") for part in ("pool", "spatial"))
    return evaluator_statistics(pool), evaluator_statistics(spatial)


def metrics(evaluation: Evaluation) -> list[Metric]:
    count = len(evaluation.in_reference_manifold)
    return [
        Metric(name=name, value=getattr(evaluation, name), higher_is_better=higher_is_better, n=count, label=label)
        for name, (label, higher_is_better) in LABELS.items()
    ]


def items(job: ScoreJob, evaluation: Evaluation) -> Iterator[dict[str, Any]]:
    """One line per image; `row` is its row in `features/sample_*.npy`."""
    for row, inside in enumerate(evaluation.in_reference_manifold):
        yield {"id": job.samples.ids[row], "row": row, "in_reference_manifold": bool(inside)}


def notes(count: int, options: Options, evaluation: Evaluation) -> list[str]:
    found = []
    if count < FULL_COUNT:
        found.append(
            f"Computed from {count:,} images; published numbers use {FULL_COUNT:,}, and both distances fall as the "
            "count grows."
        )
    if options.distances == "exact":
        found.append("Precision and recall use exact distances; published numbers use float16 ones.")
    if np.isnan(evaluation.inception_score):
        found.append(
            "The Inception Score is not a number: a class has probability 0 for some image, as float32 rounds it."
        )
    return found


def _new_array(path: Path, count: int, width: int) -> Array:
    return np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(count, width))


if __name__ == "__main__":
    raise SystemExit(run_scorer(score))
