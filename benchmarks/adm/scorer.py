"""ADM ImageNet benchmark: sample set in, gFID, sFID, Inception Score, precision and recall out.

Two feature stages, each stored by the harness under the digest of its inputs: the reference's features (graph and
archive), and the samples' (graph and samples). A third, `check`, comes before them and refuses a reference that does
not fit. The score itself is only the arithmetic of `evaluation.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import fields
from pathlib import Path
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
from benchmarks.adm.graph import PACKAGES, open_graph
from benchmarks.adm.interface import METRICS, Backend, Options
from benchmarks.adm.references import Reference, kind_notes, refuse_mixed_up, refuse_other_kind
from harness.contract.digest import digest_pixels, sha256_file
from harness.contract.errors import MissingAsset
from harness.contract.files import read_json, write_json
from harness.contract.interface import Metrics
from harness.contract.npz import npz_names, open_npz_member, read_npz_array
from harness.contract.progress import Progress
from harness.contract.record import Metric, ScoreRecord
from harness.contract.samples import SampleSet
from harness.metrics.frechet import Statistics
from harness.metrics.interval import wilson_interval
from harness.metrics.prdc import adm_radii
from harness.scoring.features import FeatureFile, read_ahead
from harness.scoring.scorer import Assets, FeatureJob, ScoreJob, describe_environment, run_scorer
from harness.scoring.screen import screen_samples

Array = npt.NDArray[Any]

VERSION = 2
GRAPH = "adm-inception-graph"
REFERENCE = "adm-imagenet256-reference"
FULL_COUNT = 50_000
IMAGE_SIZE = 256
"""Of the protocol: what published numbers were measured on, in pixels."""
REPEATS_FILE = "repeated.json"
"""How many of the reference's images repeat another one."""
_WARM_UP = (1, 64, 64, 3)


def score(job: ScoreJob[SampleSet]) -> ScoreRecord:
    options = Options.read(job.options, "adm")
    found = screen(job.samples, options, at_least=options.manifold_k + 1)
    reference = check_reference(job.assets, options)
    job.stage("check")
    samples, of_reference = job.stage("samples"), job.stage("reference")
    evaluation = evaluate(Features.read(of_reference, samples), options, _distance(options))
    job.items.extend(items(job, evaluation))
    return ScoreRecord(
        benchmark="adm",
        benchmark_version=VERSION,
        metrics=metrics(evaluation, options, len(job.samples)),
        digests={f"asset:{GRAPH}": sha256_file(job.assets.file(GRAPH)), f"asset:{REFERENCE}": reference.sha256},
        environment=describe_environment(["scipy", PACKAGES[options.backend]]),
        options=options.as_mapping(),
        images=describe_images(job.samples, reference),
        notes=[
            *found,
            *reference.notes,
            *repeat_notes(of_reference, reference),
            *size_notes(job.samples.image_size, reference),
            *notes(len(job.samples), evaluation),
        ],
    )


def screen(samples: SampleSet, options: Options, *, at_least: int = 2) -> list[str]:
    """Refuse, before any work, what cannot be scored; notes for the record. The samples' stage does not know the
    number of neighbours, so it leaves `at_least` at what a covariance needs."""
    refuse_other_kind(options.measure, samples, options.samples_are)
    found = screen_samples(samples, "adm", at_least=at_least, duplicates=options.duplicates)
    return [*kind_notes(samples, options.samples_are), *found]


# --- stages ----------------------------------------------------------------------------------------------------------


def check(job: FeatureJob[SampleSet]) -> None:
    """Refuse a reference that does not fit, before the first feature: hours of work would come before the score."""
    options = Options.read(job.options, "adm")
    check_reference(job.assets, options)
    pool, spatial = stored_statistics(job.assets)
    if pool is None:
        return
    graph = open_graph(job.assets.file(GRAPH), options.backend)
    for name, stored, features in zip(
        ("mu", "mu_s"), (pool, spatial), graph.features(np.zeros(_WARM_UP, np.uint8)), strict=True
    ):
        if stored is not None and stored.mean.shape != features.shape[1:]:
            raise MissingAsset(
                f"{job.assets.file(REFERENCE)}: {name} has {len(stored.mean):,} values where the features of "
                f"{GRAPH} have {features.shape[1]:,}; give a reference that was made with this graph."
            )
    graph.close()


def reference_features(job: FeatureJob[SampleSet]) -> None:
    """Features of the reference's images, its statistics, and the radii of its balls.

    An archive with `mu` has the statistics of a whole data set, of which `arr_0` is a part; the two distances then use
    the statistics, and only precision and recall use `arr_0`.
    """
    options = Options.read(job.options, "adm")
    path = job.assets.file(REFERENCE)
    reference = check_reference(job.assets, options)
    of_pool, of_spatial = stored_statistics(job.assets)
    if reference.count:
        digests: list[str] = []
        with open_npz_member(path, "arr_0", error=MissingAsset) as images:
            progress = job.progress(reference.count, "reference images")
            pool, spatial = extract(
                job, digested(images.batches(options.batch_size), digests), progress, options.backend
            )
        write_json(job.out / REPEATS_FILE, len(digests) - len(set(digests)))
        if of_pool is None:
            of_pool, of_spatial = evaluator_statistics(pool), evaluator_statistics(spatial)
        if options.distances == "float16":
            np.save(job.out / RADII_FILE, adm_radii(pool, k=options.manifold_k))
    if of_pool is not None:
        write_statistics(job.out, of_pool, of_spatial)


def digested(batches: Iterable[Array], digests: list[str]) -> Iterator[Array]:
    """The batches, while the digest of each image goes into `digests`."""
    for images_u8 in batches:
        digests.extend(map(digest_pixels, images_u8))
        yield images_u8


def sample_features(job: FeatureJob[SampleSet]) -> None:
    """Features of the samples in request order, and the classifier that turns them into probabilities."""
    options = Options.read(job.options, "adm")
    screen(job.samples, options)
    progress = job.progress(len(job.samples), "images")
    extract(job, job.samples.batches(options.batch_size), progress, options.backend)


def extract(
    job: FeatureJob[SampleSet], batches: Iterable[Array], progress: Progress, backend: Backend
) -> tuple[Array, Array]:
    """Write `pool.npy`, `spatial.npy` and `classifier.npy` batch by batch; images are never all in memory."""
    graph = open_graph(job.assets.file(GRAPH), backend)
    pool, spatial = (FeatureFile(job.out / f"{name}.npy", progress.total) for name in ("pool", "spatial"))
    for images_u8 in read_ahead(batches):
        pool_batch, spatial_batch = graph.features(images_u8)
        pool.append(pool_batch)
        spatial.append(spatial_batch)
        progress.advance(len(images_u8))
    np.save(job.out / "classifier.npy", graph.classifier)
    graph.close()
    return pool.finish(), spatial.finish()


def check_reference(assets: Assets, options: Options) -> Reference:
    """What the reference archive is, checked before any work: its arrays, their type and size, and its split."""
    path = assets.file(REFERENCE)
    names = set(npz_names(path, error=MissingAsset))
    has_statistics = _has_pair(path, names, "mu", "sigma")
    has_images = "arr_0" in names or not has_statistics  # with neither, the images are what is missing
    shape = _image_shape(path, options) if has_images else (0,)
    reference = Reference(
        name=str(path),
        sha256=sha256_file(path),
        count=shape[0],
        has_statistics=has_statistics,
        has_spatial=not has_statistics or _has_pair(path, names, "mu_s", "sigma_s"),
        image_size=(shape[1], shape[2]) if has_images else None,
        said=options.reference_split,
        known=options.references,
    )
    refuse_mixed_up(options.measure, reference)
    return reference


def _has_pair(path: Path, names: set[str], mean: str, covariance: str) -> bool:
    """Whether both are there; MissingAsset for one without the other."""
    if len(names & {mean, covariance}) == 1:
        there, lacking = (mean, covariance) if mean in names else (covariance, mean)
        raise MissingAsset(f"{path}: holds {there!r} without {lacking!r}; give an archive with both, or with neither.")
    return mean in names


def _image_shape(path: Path, options: Options) -> tuple[int, ...]:
    """(N, H, W, 3) of `arr_0`."""
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
    return shape


def stored_statistics(assets: Assets) -> tuple[Statistics | None, Statistics | None]:
    """Pool and spatial statistics of the reference archive, None where it stores none; pool alone is what MAR ships."""
    path = assets.file(REFERENCE)
    names = npz_names(path, error=MissingAsset)
    if "mu" not in names:  # without it, the original takes none of the four
        return None, None
    pool = _statistics(path, "mu", "sigma")
    return pool, _statistics(path, "mu_s", "sigma_s") if "mu_s" in names else None


def _statistics(path: Path, mean: str, covariance: str) -> Statistics:
    arrays = [read_npz_array(path, name, error=MissingAsset) for name in (mean, covariance)]
    try:
        if any(array.dtype.kind not in "fiu" for array in arrays):
            raise ValueError(f"the statistics are {arrays[0].dtype} and {arrays[1].dtype}, not real numbers")
        return Statistics(mean=arrays[0], covariance=arrays[1])
    except ValueError as error:
        raise MissingAsset(
            f"{path}: {mean}, {covariance}: {error}; fetch it again: harness assets pull {REFERENCE}"
        ) from error


# --- the record ------------------------------------------------------------------------------------------------------


def metrics(evaluation: Evaluation, options: Options, count: int) -> list[Metric]:
    """The metrics of `count` samples; gFID is called rFID when that was measured. Shares have an interval."""
    make = Metrics(METRICS).make
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
    inside = evaluation.in_reference_manifold
    for row, id_ in enumerate(job.samples.ids):
        flag = {} if inside is None else {"in_reference_manifold": bool(inside[row])}
        yield {"id": id_, "row": row, **flag}


def describe_images(samples: SampleSet, reference: Reference) -> dict[str, str]:
    """Number and size (height x width) of the samples and of the reference's images; what has other ones compares with
    nothing here."""
    side = samples.image_size
    found = {"samples": f"{len(samples):,} of {side} x {side} px"}
    if reference.image_size:
        height, width = reference.image_size
        found["reference"] = f"{reference.count:,} of {height} x {width} px"
    return found


def size_notes(image_size: int, reference: Reference) -> list[str]:
    """Sentences about sizes: the graph scales every image to its own, so that size is part of what is measured."""
    found = []
    if reference.image_size not in (None, (image_size, image_size)):
        height, width = reference.image_size
        found.append(
            f"The samples are {image_size} x {image_size} px and the reference's images {height} x {width} px: "
            "enlarging or shrinking the same images changes the distances, so give a reference of the samples' size."
        )
    if image_size != IMAGE_SIZE:
        found.append(f"The samples are {image_size} px; published numbers of this protocol are of {IMAGE_SIZE} px.")
    return found


def repeat_notes(folder: Path, reference: Reference) -> list[str]:
    """A sentence where images of the reference occur more than once."""
    repeated = read_json(folder / REPEATS_FILE) if reference.count else 0
    if not repeated:
        return []
    return [
        f"{repeated:,} of {reference.count:,} images of the reference repeat another one to the last pixel, which "
        "moves precision, recall and, without stored statistics, the distances."
    ]


def notes(count: int, evaluation: Evaluation) -> list[str]:
    found = []
    if count != FULL_COUNT:
        found.append(
            f"Computed from {count:,} images; published numbers use {FULL_COUNT:,}, and both distances fall as the "
            "count grows."
        )
    if evaluation.inception_score is not None and np.isnan(evaluation.inception_score):
        found.append(
            "The Inception Score is not a number: a class has probability 0 for some image, as float32 rounds it."
        )
    return found


def _distance(options: Options) -> Any:
    if options.distances != "tensorflow":
        return None
    from benchmarks.adm.inception_graph import TensorFlowDistances

    return TensorFlowDistances()


STAGES = {"check": check, "reference": reference_features, "samples": sample_features}

if __name__ == "__main__":
    raise SystemExit(run_scorer(score, stages=STAGES))
