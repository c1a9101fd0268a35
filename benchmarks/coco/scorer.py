"""COCO benchmark: sample set in, FID against the real images and CLIPScore against the captions out.

Two feature stages, each stored by the harness under the digest of its inputs: the real images, and the samples, which
go through both networks in one pass.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image

from benchmarks.coco.evaluation import fid
from benchmarks.coco.interface import METRICS, Options
from benchmarks.coco.recompute import metrics_from_items
from harness.contract.digest import sha256_file
from harness.contract.errors import BadSamples
from harness.contract.images import to_square
from harness.contract.interface import Metrics
from harness.contract.items import ItemSource
from harness.contract.record import ScoreRecord
from harness.contract.requests import RequestSet
from harness.contract.samples import SampleSet
from harness.scoring.coco import CocoParquet, selection
from harness.scoring.features import FeatureFile, read_features
from harness.scoring.scorer import Assets, FeatureJob, ScoreJob, describe_environment, run_scorer
from harness.scoring.screen import screen_samples

if TYPE_CHECKING:
    from harness.scoring.networks.clip import ClipCosines

VERSION = 1
DATASET = "coco-val2017"
WEIGHTS = "fid-inception"
CLIP = {
    "clip-vit-b32-config": "config.json",
    "clip-vit-b32-weights": "model.safetensors",
    "clip-vit-b32-vocab": "vocab.json",
    "clip-vit-b32-merges": "merges.txt",
}
"""Asset -> its name in the model's repository on the hub."""
NUM_PUBLISHED = 30_000


def score(job: ScoreJob[SampleSet]) -> ScoreRecord:
    options = Options.read(job.options, "coco")
    found = screen_samples(job.samples, "coco", at_least=2, duplicates=options.duplicates)
    requests_of(job.samples, job.assets, options)
    samples = job.stage("samples")
    real, drawn = read_features(job.stage("reference") / "features.npy"), read_features(samples / "features.npy")
    cosines = np.load(samples / "cosines.npy", allow_pickle=False)
    for row, (id_, cosine) in enumerate(zip(job.samples.ids, cosines, strict=True)):
        job.items.append({"id": id_, "row": row, "cosine": float(cosine)})
    make = Metrics(METRICS).make
    source = ItemSource(benchmark="coco", options=options.as_mapping(), asset=job.assets.file)
    return ScoreRecord(
        benchmark="coco",
        benchmark_version=VERSION,
        metrics=[
            make("fid", fid(real, drawn), n=len(drawn)),
            *metrics_from_items(job.items, source),
        ],
        digests={
            **{f"asset:{name}": sha256_file(job.assets.file(name)) for name in (WEIGHTS, *CLIP)},
            f"asset:{DATASET}": CocoParquet(job.assets.path(DATASET)).digest,
        },
        environment=describe_environment(["scipy", "torch", "torchvision", "transformers", "pyarrow"]),
        options=options.as_mapping(),
        notes=[*found, *notes(len(real), len(drawn))],
    )


# --- stages ----------------------------------------------------------------------------------------------------------


def reference_features(job: FeatureJob[SampleSet]) -> None:
    """`features.npy`: (n, 2048) of the selected real images, in the order of selection."""
    from harness.scoring.networks.inception import FIDFeatures  # PyTorch, which the score itself does not need

    options, dataset = Options.read(job.options, "coco"), CocoParquet(job.assets.path(DATASET))
    rows = selection(len(dataset), options.num_samples, options.selection_seed)
    network, file = FIDFeatures(job.assets.file(WEIGHTS)), FeatureFile(job.out / "features.npy", len(rows))
    progress = job.progress(len(rows), "real images")
    for places, images_u8 in real_batches(dataset, rows, options):
        file.put(places, network(images_u8))
        progress.advance(len(places))
    file.finish()


def sample_features(job: FeatureJob[SampleSet]) -> None:
    """`features.npy` (N, 2048) and `cosines.npy` (N,) of the samples, in request order, in one pass over the images."""
    options, samples = Options.read(job.options, "coco"), job.samples
    screen_samples(samples, "coco", at_least=2, duplicates=options.duplicates)
    captions = [str(request.prompt) for request in requests_of(samples, job.assets, options)]

    from harness.scoring.networks.inception import FIDFeatures  # after the checks, which should take only seconds

    inception = FIDFeatures(job.assets.file(WEIGHTS))
    clip = build_clip(job.assets, options.batch_size)
    file, progress = FeatureFile(job.out / "features.npy", len(samples)), job.progress(len(samples), "images")
    cosines: list[npt.NDArray[np.float64]] = []
    start = 0
    for batch in samples.batches(options.batch_size):
        images_u8 = np.stack([np.asarray(to_square(Image.fromarray(image), options.image_size)) for image in batch])
        file.append(inception(images_u8))
        cosines.append(clip(images_u8, captions[start : start + len(batch)]))
        start += len(batch)
        progress.advance(len(batch))
    file.finish()
    np.save(job.out / "cosines.npy", np.concatenate(cosines))


def build_clip(assets: Assets, batch_size: int) -> ClipCosines:
    """CLIP from its four assets, on the GPU where there is one."""
    import torch

    from harness.scoring.networks.clip import ClipCosines

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with tempfile.TemporaryDirectory(prefix="clip-") as folder:
        for name, filename in CLIP.items():
            shutil.copyfile(assets.file(name), Path(folder) / filename)
        fix = f"fetch {', '.join(CLIP)} again: harness assets pull --benchmark coco"
        return ClipCosines(Path(folder), device, fix=fix, batch_size=batch_size)


def real_batches(
    dataset: CocoParquet, rows: npt.NDArray[np.int64], options: Options
) -> Iterator[tuple[list[int], npt.NDArray[np.uint8]]]:
    """(places in the selection, (n, S, S, 3) uint8) in the order of the files, which is faster than the selection's."""
    place_of = {int(row): place for place, row in enumerate(rows)}
    places: list[int] = []
    images: list[npt.NDArray[np.uint8]] = []
    for row, image in dataset.images(set(place_of)):
        places.append(place_of[row])
        images.append(np.asarray(to_square(image, options.image_size), dtype=np.uint8))
        if len(images) == options.batch_size:
            yield places, np.stack(images)
            places, images = [], []
    if images:
        yield places, np.stack(images)


# --- the record ------------------------------------------------------------------------------------------------------


def requests_of(samples: SampleSet, assets: Assets, options: Options) -> RequestSet:
    """The captions the samples were drawn for, checked against the selection.

    Raises BadSamples when they are unknown, or not those of the selection.
    """
    requests = samples.requests
    if requests is None or requests.is_class_conditional:
        raise BadSamples(
            f"{samples.folder}: the captions of the images are unknown; draw samples for coco's requests "
            "(harness run --benchmark coco ...)."
        )
    captions = CocoParquet(assets.path(DATASET)).captions()
    rows = selection(len(captions), options.num_samples, options.selection_seed)[: len(requests)]
    if [request.prompt for request in requests] != [captions[row] for row in rows]:
        raise BadSamples(
            f"{samples.folder}: the captions are not the first {len(requests):,} of the selection of {DATASET}; draw "
            "samples for the data set they are scored against."
        )
    return requests


def notes(num_real: int, num_drawn: int) -> list[str]:
    found = []
    if num_real < NUM_PUBLISHED:
        found.append(
            f"The data set has {num_real:,} rows to compare with; results called COCO-30k use {NUM_PUBLISHED:,} images "
            "and are lower for that reason alone."
        )
    if num_drawn < num_real:
        found.append(f"Computed from {num_drawn:,} samples of {num_real:,} captions: a quick test, not a result.")
    return found


if __name__ == "__main__":
    raise SystemExit(run_scorer(score, stages={"reference": reference_features, "samples": sample_features}))
