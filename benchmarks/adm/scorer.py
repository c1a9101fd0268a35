"""ADM ImageNet benchmark: sample set in, gFID, sFID, Inception Score, precision and recall out.

Two feature stages, each stored by the harness under the digest of its inputs: the reference's features (graph and
archive), and the samples' (graph and samples). The score itself is only the arithmetic of `evaluation.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import fields
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.adm.evaluation import (
    RADII_FILE,
    Evaluation,
    Features,
    evaluate,
    evaluator_statistics,
    write_statistics,
)
from benchmarks.adm.interface import METRICS, Options
from benchmarks.adm.references import Reference, kind_notes, refuse_mixed_up, refuse_other_kind
from harness.contract.digest import sha256_file
from harness.contract.errors import MissingAsset
from harness.contract.interface import Metrics
from harness.contract.npz import npz_names, open_npz_member, read_npz_array
from harness.contract.progress import Progress
from harness.contract.record import Metric, ScoreRecord
from harness.contract.samples import SampleSet
from harness.metrics.frechet import Statistics
from harness.metrics.interval import wilson_interval
from harness.metrics.prdc import adm_radii
from harness.scoring.features import FeatureFile
from harness.scoring.scorer import Assets, FeatureJob, ScoreJob, describe_environment, run_scorer
from harness.scoring.screen import screen_samples

Array = npt.NDArray[Any]

VERSION = 2
GRAPH = "adm-inception-graph"
REFERENCE = "adm-imagenet256-reference"
FULL_COUNT = 50_000


def score(job: ScoreJob[SampleSet]) -> ScoreRecord:
    options = Options.read(job.options, "adm")
    found = screen(job.samples, options, at_least=options.manifold_k + 1)
    reference = check_reference(job.assets, options)
    features = Features.read(job.stage("reference"), job.stage("samples"))
    evaluation = evaluate(features, options, _distance(options))
    job.items.extend(items(job, evaluation))
    return ScoreRecord(
        benchmark="adm",
        benchmark_version=VERSION,
        metrics=metrics(evaluation, options),
        digests={f"asset:{GRAPH}": sha256_file(job.assets.file(GRAPH)), f"asset:{REFERENCE}": reference.sha256},
        environment=describe_environment(["scipy", "tensorflow-cpu"]),
        options=options.as_mapping(),
        notes=[*found, *reference.notes, *notes(len(job.samples), evaluation)],
    )


def screen(samples: SampleSet, options: Options, *, at_least: int = 2) -> list[str]:
    """Refuse, before any work, what cannot be scored; notes for the record. The samples' stage does not know the
    number of neighbours, so it leaves `at_least` at what a covariance needs."""
    refuse_other_kind(options.measure, samples, options.samples_are)
    found = screen_samples(samples, "adm", at_least=at_least, duplicates=options.duplicates)
    return [*kind_notes(samples, options.samples_are), *found]


# --- stages ----------------------------------------------------------------------------------------------------------


def reference_features(job: FeatureJob[SampleSet]) -> None:
    """Features of the reference's images, its statistics, and the radii of its balls.

    An archive with `mu` has the statistics of a whole data set, of which `arr_0` is a part; the two distances then use
    the statistics, and only precision and recall use `arr_0`.
    """
    options = Options.read(job.options, "adm")
    path = job.assets.file(REFERENCE)
    reference = check_reference(job.assets, options)
    with open_npz_member(path, "arr_0", error=MissingAsset) as images:
        progress = job.progress(reference.count, "reference images")
        pool, spatial = extract(job, images.batches(options.batch_size), progress)
    of_pool, of_spatial = stored_statistics(job.assets) or (evaluator_statistics(pool), evaluator_statistics(spatial))
    write_statistics(job.out, of_pool, of_spatial)
    if options.distances == "float16":
        np.save(job.out / RADII_FILE, adm_radii(pool, k=options.manifold_k))


def sample_features(job: FeatureJob[SampleSet]) -> None:
    """Features of the samples in request order, and the classifier that turns them into probabilities."""
    options = Options.read(job.options, "adm")
    screen(job.samples, options)
    extract(job, job.samples.batches(options.batch_size), job.progress(len(job.samples), "images"))


def extract(job: FeatureJob[SampleSet], batches: Iterable[Array], progress: Progress) -> tuple[Array, Array]:
    """Write `pool.npy`, `spatial.npy` and `classifier.npy` batch by batch; images are never all in memory."""
    from benchmarks.adm.inception_graph import InceptionGraph  # TensorFlow, which the score itself does not need

    graph = InceptionGraph(job.assets.file(GRAPH))
    pool, spatial = (FeatureFile(job.out / f"{name}.npy", progress.total) for name in ("pool", "spatial"))
    for images_u8 in batches:
        pool_batch, spatial_batch = graph.features(images_u8)
        pool.append(pool_batch)
        spatial.append(spatial_batch)
        progress.advance(len(images_u8))
    np.save(job.out / "classifier.npy", graph.classifier)
    graph.close()
    return pool.finish(), spatial.finish()


def check_reference(assets: Assets, options: Options) -> Reference:
    """What the reference archive is, checked before any work: its type, its size, and its split."""
    path = assets.file(REFERENCE)
    with open_npz_member(path, "arr_0", error=MissingAsset) as images:
        shape, dtype = images.shape, images.dtype
    if dtype != np.uint8 or len(shape) != 4 or shape[3] != 3:
        raise MissingAsset(
            f"{path}: arr_0 is {dtype} {shape}, but a reference archive holds uint8 (N, H, W, 3); "
            f"fetch it again: harness assets pull {REFERENCE}"
        )
    if shape[0] <= options.manifold_k:
        raise MissingAsset(
            f"{path}: holds {shape[0]} images, but precision and recall need more than {options.manifold_k}; "
            "use a larger reference archive."
        )
    has_statistics = "mu" in npz_names(path, error=MissingAsset)
    reference = Reference(
        filename=path.name,
        sha256=sha256_file(path),
        count=shape[0],
        has_statistics=has_statistics,
        said=options.reference_split,
        known=options.references,
    )
    refuse_mixed_up(options.measure, reference)
    return reference


def stored_statistics(assets: Assets) -> tuple[Statistics, Statistics] | None:
    """Pool and spatial statistics of the reference archive, or None where it stores none."""
    path = assets.file(REFERENCE)
    if "mu" not in npz_names(path, error=MissingAsset):
        return None
    mu, sigma, mu_s, sigma_s = (
        read_npz_array(path, key, error=MissingAsset) for key in ("mu", "sigma", "mu_s", "sigma_s")
    )
    try:
        return Statistics(mean=mu, covariance=sigma), Statistics(mean=mu_s, covariance=sigma_s)
    except ValueError as error:
        raise MissingAsset(f"{path}: {error}; fetch it again: harness assets pull {REFERENCE}") from error


# --- the record ------------------------------------------------------------------------------------------------------


def metrics(evaluation: Evaluation, options: Options) -> list[Metric]:
    """The metrics; gFID is called rFID when that was measured. Shares have an interval over their images."""
    count, make = len(evaluation.in_reference_manifold), Metrics(METRICS).make
    values = {field.name: getattr(evaluation, field.name) for field in fields(evaluation)}
    del values["in_reference_manifold"]
    rows = []
    for name, value in values.items():
        if value is None:
            continue
        interval = wilson_interval(round(value * count), count) if name.startswith("precision") else None
        reported_as = "rfid" if name == "gfid" and options.measure == "rfid" else name
        rows.append(make(reported_as, value, n=count, interval=interval))
    return rows


def items(job: ScoreJob[SampleSet], evaluation: Evaluation) -> Iterator[dict[str, Any]]:
    """One line per image; `row` is its row in the samples' features."""
    for row, inside in enumerate(evaluation.in_reference_manifold):
        yield {"id": job.samples.ids[row], "row": row, "in_reference_manifold": bool(inside)}


def notes(count: int, evaluation: Evaluation) -> list[str]:
    found = []
    if count < FULL_COUNT:
        found.append(
            f"Computed from {count:,} images; published numbers use {FULL_COUNT:,}, and both distances fall as the "
            "count grows."
        )
    if np.isnan(evaluation.inception_score):
        found.append(
            "The Inception Score is not a number: a class has probability 0 for some image, as float32 rounds it."
        )
    return found


def _distance(options: Options) -> Any:
    if options.distances != "tensorflow":
        return None
    from benchmarks.adm.inception_graph import TensorFlowDistances

    return TensorFlowDistances()


if __name__ == "__main__":
    raise SystemExit(run_scorer(score, stages={"reference": reference_features, "samples": sample_features}))
