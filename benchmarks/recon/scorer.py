"""Tokenizer reconstruction: pairs of originals and reconstructions in, rFID, PSNR, SSIM and L1 out.

One feature stage reads the pairs once, for the per-image metrics and for both sides of rFID.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.recon.evaluation import Measured, evaluate
from benchmarks.recon.interface import METRICS, Options
from benchmarks.recon.pairs import PairSet
from benchmarks.recon.recompute import metrics_from_items
from harness.contract.digest import sha256_file
from harness.contract.files import read_json, write_json
from harness.contract.interface import Metrics
from harness.contract.items import ItemSource, Row
from harness.contract.record import Metric, ScoreRecord
from harness.metrics.image import l1, psnr, ssim
from harness.scoring.features import FeatureFile, read_features
from harness.scoring.scorer import FeatureJob, ScoreJob, describe_environment, run_scorer

VERSION = 2
WEIGHTS = "fid-inception"
FULL_COUNT = 50_000


def score(job: ScoreJob[PairSet]) -> ScoreRecord:
    options = Options.read(job.options, "recon")
    folder = job.stage("pairs")
    with np.load(folder / "images.npz", allow_pickle=False) as each:
        measured = Measured(
            **{name: each[name] for name in ("l1", "psnr", "ssim")},
            originals=read_features(folder / "originals.npy"),
            reconstructions=read_features(folder / "reconstructions.npy"),
        )
    job.items.extend(items_of(measured))
    return ScoreRecord(
        benchmark="recon",
        benchmark_version=VERSION,
        metrics=list(metrics(measured, options)),
        digests={f"asset:{WEIGHTS}": sha256_file(job.assets.file(WEIGHTS))},
        environment=describe_environment(["scipy", "torch", "torchvision"]),
        options={**options.as_mapping(), "resize": job.samples.made.get("resize", "not stated")},
        protocol={"image_size": job.samples.shape[1], "ema": job.samples.made.get("ema", "not stated")},
        notes=[*read_json(folder / "notes.json"), *notes(job.samples, options)],
    )


def measure_pairs(job: FeatureJob[PairSet]) -> None:
    """`images.npz` (l1, psnr, ssim per image), `originals.npy` and `reconstructions.npy` (features), `notes.json`."""
    from harness.scoring.networks.inception import FIDFeatures  # PyTorch, which the score itself does not need

    options, count = Options.read(job.options, "recon"), len(job.samples)
    network, progress = FIDFeatures(job.assets.file(WEIGHTS)), job.progress(count, "pairs")
    files = [FeatureFile(job.out / f"{name}.npy", count) for name in ("originals", "reconstructions")]
    each: dict[str, list[np.ndarray]] = {"l1": [], "psnr": [], "ssim": []}
    found: list[str] = []
    for pair in job.samples.batches(options.batch_size, found):
        channels_first = [images_01.transpose(0, 3, 1, 2) for images_01 in pair]
        for name, metric in (("l1", l1), ("psnr", psnr), ("ssim", ssim)):
            each[name].append(metric(*channels_first))
        for file, images_01 in zip(files, pair, strict=True):
            file.append(network(images_01))
        progress.advance(len(pair[0]))
    for file in files:
        file.finish()
    np.savez(job.out / "images.npz", **{name: np.concatenate(parts) for name, parts in each.items()})  # type: ignore[arg-type]
    write_json(job.out / "notes.json", found)


def metrics(measured: Measured, options: Options) -> Iterator[Metric]:
    """rFID, which has no interval, and the means over the images."""
    rfid = evaluate(measured, options)["rfid"]
    yield Metrics(METRICS).make("rfid", rfid, n=len(measured.l1))
    source = ItemSource(benchmark="recon", options=options.as_mapping(), asset=Path)
    yield from metrics_from_items(list(items_of(measured)), source)


def items_of(measured: Measured) -> Iterator[Row]:
    """A row per pair."""
    for row in range(len(measured.l1)):
        values = {name: float(getattr(measured, name)[row]) for name in ("l1", "psnr", "ssim")}
        yield {"id": f"{row:06d}", "row": row, **values}


def notes(pairs: PairSet, options: Options) -> list[str]:
    found = []
    if len(pairs) < FULL_COUNT:
        found.append(
            f"Computed from {len(pairs):,} pairs; published numbers use ImageNet's {FULL_COUNT:,} validation images, "
            "and rFID falls as the count grows."
        )
    if pairs.dtype == "uint8":
        found.append("The reconstructions are rounded to uint8; the published protocol compares unrounded ones.")
    if not pairs.made:
        found.append("The pairs do not state how their images were resized, or which weights made them.")
    elif (pairs.made.get("resize"), pairs.made.get("ema")) != (options.resize, options.ema):
        weights = "averaged" if pairs.made.get("ema") else "live"
        found.append(f"The pairs were made with {pairs.made.get('resize')} resizing and {weights} weights.")
    return found


if __name__ == "__main__":
    raise SystemExit(run_scorer(score, stages={"pairs": measure_pairs}, reads=PairSet.open))
