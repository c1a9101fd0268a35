"""demo_t2i: pictures of digits in, a verdict for each and GenEval's scores per task out.

The digit is read by the demo's kernel classifier, fitted on real digits at the start; the colour by hue. How often both
are right on real held-out digits is measured in the same run and reported with the score.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.demo_t2i.interface import Options
from benchmarks.demo_t2i.recompute import metrics_from_items, share
from benchmarks.demo_t2i.request_set import ASSET
from benchmarks.demo_t2i.verdict import colours_of, judge
from harness.contract.digest import sha256_file
from harness.contract.errors import BadSamples, MissingAsset
from harness.contract.files import read_json
from harness.contract.items import ItemSource
from harness.contract.npz import read_npz_array
from harness.contract.record import ScoreRecord
from harness.contract.requests import RequestSet
from harness.contract.samples import SampleSet
from harness.scoring.digit_classifier import DigitClassifier
from harness.scoring.scorer import ScoreJob, describe_environment, run_scorer
from harness.scoring.verdicts import printed, summarise, write_results

Array = npt.NDArray[Any]
Row = dict[str, Any]

VERSION = 1
FILES = ("train.npz", "held_out.npz", "digits.json")
IMAGES_AT_A_TIME = 128


def score(job: ScoreJob) -> ScoreRecord:
    Options.read(job.options, "demo_t2i")
    requests = prompts_of(job.samples)
    folder = job.assets.folder / ASSET
    about = read_about(folder / "digits.json")
    train, held_out = (read_split(folder / f"{split}.npz") for split in ("train", "held_out"))
    if job.samples.image_size != train[0].shape[1]:
        raise BadSamples(
            f"{job.samples.folder}: the images are {job.samples.image_size} px, but the digits {train[0].shape[1]} px; "
            "draw the images at that size."
        )
    reader = Reader(train, about)

    progress = job.progress(len(requests), "images")
    rows: list[Row] = []
    for images_u8 in job.samples.batches(IMAGES_AT_A_TIME):
        for digit, colour in reader.read(images_u8):
            rows.append(judged(requests, len(rows), digit, colour))
        progress.advance(len(images_u8))
    job.items.extend(rows)
    write_results(job.out / "results.jsonl", rows)
    print(printed(summarise(rows)))
    source = ItemSource(benchmark=requests.benchmark, options=job.options, asset=job.assets.file)
    return ScoreRecord(
        benchmark=requests.benchmark,
        benchmark_version=requests.version,
        metrics=[*metrics_from_items(rows, source), share("real_digits", reader.right_on(held_out, about))],
        digests={f"asset:{ASSET}/{name}": sha256_file(folder / name) for name in FILES},
        environment=describe_environment(["scipy"]),
        notes=["A demonstration: the numbers are comparable only with other runs of this benchmark."],
    )


def prompts_of(samples: SampleSet) -> RequestSet:
    """What the samples were drawn for; BadSamples when it is not this benchmark."""
    requests = samples.requests
    if requests is None or (requests.benchmark, requests.version) != ("demo_t2i", VERSION):
        found = "unknown prompts" if requests is None else f"{requests.benchmark} version {requests.version}"
        raise BadSamples(
            f"{samples.folder}: was drawn for {found}, not the prompts of demo_t2i; draw samples for them: harness run "
            "--suite demo-t2i --ckpt FILE"
        )
    return requests


class Reader:
    """Reads digit and colour of pictures."""

    def __init__(self, train: tuple[Array, Array, Array], about: Row) -> None:
        """train: as `read_split` gives it; about: names and palette, of `digits.json`."""
        self.names = list(dict.fromkeys(row["digit"] for row in about["prompts"]))
        self.palette = about["colours"]
        self.classifier = DigitClassifier(train[0], train[1])

    def read(self, images_u8: Array) -> list[tuple[str, str | None]]:
        """(digit, colour) of each of (N, H, W, 3) uint8."""
        digits = [self.names[label] for label in self.classifier.predict(images_u8)]
        return list(zip(digits, colours_of(images_u8, self.palette), strict=True))

    def right_on(self, held_out: tuple[Array, Array, Array], about: Row) -> Array:
        """(N,) bool: whether digit and colour of each real digit are both read correctly."""
        images_u8, labels, colour_ids = held_out
        colours = list(about["colours"])
        known = [(self.names[label], colours[colour]) for label, colour in zip(labels, colour_ids, strict=True)]
        return np.array([found == right for found, right in zip(self.read(images_u8), known, strict=True)])


def judged(requests: RequestSet, index: int, digit: str, colour: str | None) -> Row:
    """The row of one image, with the fields of GenEval's results."""
    request = requests[index]
    verdict, reasons = judge(request.meta, digit, colour)
    return {
        "id": request.id,
        "filename": request.path,
        "tag": request.meta["tag"],
        "prompt": request.prompt,
        "correct": verdict.correct,
        "reason": "\n".join(reasons),
        "metadata": dict(request.meta),
        "details": {"digit": digit, "color": colour},
        "digit_right": verdict.digit_right,
        "colour_right": verdict.colour_right,
    }


def read_about(path: Path) -> Row:
    """Palette and prompts of the asset."""
    if not path.is_file() or "prompts" not in (about := read_json(path)):
        raise MissingAsset(
            f"{path}: holds no prompts. Make the demo's digits: gear data digits --out DIR   then give the folder: "
            f"--asset {ASSET}=DIR"
        )
    return dict(about)


def read_split(path: Path) -> tuple[Array, Array, Array]:
    """Images (N, H, W, 3) uint8, labels (N,) and colour ids (N,) of real digits."""
    images_u8, labels, colours = (
        read_npz_array(path, key, error=MissingAsset) for key in ("images_u8", "labels", "colour_ids")
    )
    return images_u8, labels, colours


if __name__ == "__main__":
    raise SystemExit(run_scorer(score))
