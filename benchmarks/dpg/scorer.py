"""DPG-Bench: sample set in, mPLUG's answers per image, score and categories out.

A prompt's images are separate images of the sample set; a folder of 2x2 grids is split when it is
adopted (`--layout dpg`), so the image size is that of the sample set and is not an option. Answers are stored as they
arrive (`answers.jsonl`), and results replace those of earlier runs.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.dpg.interface import Options
from benchmarks.dpg.metrics import FULL_COUNT, IMAGES_PER_PROMPT
from benchmarks.dpg.mplug import FILES, WEIGHTS, Answerer
from benchmarks.dpg.questions import Item, read_questions
from benchmarks.dpg.recompute import QUESTIONS, compared, metrics_from_items
from harness.contract.digest import sha256_file
from harness.contract.errors import BadSamples, EnvironmentFailure
from harness.contract.items import ItemSource
from harness.contract.record import ScoreRecord, Unscored
from harness.contract.requests import Request, RequestSet, prompt_item
from harness.contract.samples import SampleSet
from harness.scoring.devices import available_devices, describe_devices
from harness.scoring.journal import Journal
from harness.scoring.scorer import ScoreJob, describe_environment, is_environment_error, run_scorer
from harness.scoring.workers import run_on_devices

VERSION = 1
PACKAGES = ("torch", "torchvision", "transformers", "modelscope")

Row = dict[str, Any]


def score(job: ScoreJob) -> ScoreRecord:
    started = time.monotonic()
    options = Options.read(job.options, "dpg").as_mapping()
    requests = prompts_of(job.samples)
    files = {name: job.assets.file(name) for name in (QUESTIONS, WEIGHTS, *FILES)}
    digests = {f"asset:{name}": sha256_file(path) for name, path in files.items()}
    # Every question is asked; those that the original leaves out are removed when the scores are computed.
    items = read_questions(files[QUESTIONS], skip_first_row=False)

    journal = Journal(job.out / "answers.jsonl", {"samples": job.samples.digest, **digests})
    answer_all(job, requests, journal, items, files)
    counted = [request for request in requests if is_counted(request)]
    rows = [journal.rows[request.id] for request in counted if request.id in journal]
    answered = [row for row in rows if "answers" in row]
    if not answered:
        problem = rows[0]["error"] if rows else f"the question table has none of the prompts, such as {requests[0].id}"
        raise EnvironmentFailure(f"no image could be scored; the first: {problem}")
    job.items.extend(rows)
    source = ItemSource(benchmark="dpg", options=options, asset=job.assets.file)
    return ScoreRecord(
        benchmark="dpg",
        benchmark_version=VERSION,
        metrics=metrics_from_items(rows, source),
        digests=digests,
        environment={**describe_environment(PACKAGES), "devices": describe_devices(available_devices())},
        timings_s={"answer": round(time.monotonic() - started, 3)},
        unscored=unscored(counted, items, rows),
        notes=notes(compared(rows, source).dropped, len(counted), len(requests) - len(counted), files[WEIGHTS]),
    )


def prompts_of(samples: SampleSet) -> RequestSet:
    """The requests the samples were drawn for.

    Raises:
        BadSamples: they are unknown, or of another benchmark.
    """
    requests = samples.requests
    if requests is None or (requests.benchmark, requests.version) != ("dpg", VERSION):
        raise BadSamples(
            f"{samples.folder}: was not drawn for DPG-Bench's prompts; draw samples for them, or score a folder of "
            "grids made for the original: harness score dpg --samples DIR --layout dpg"
        )
    return requests


# --- answering -------------------------------------------------------------------------------------------------------


def answer_all(
    job: ScoreJob, requests: RequestSet, journal: Journal, items: Mapping[str, Item], files: Mapping[str, Path]
) -> None:
    """Answer the questions about every image that has unanswered ones."""
    wanted = [i for i, request in enumerate(requests) if prompt_item(request) in items and is_counted(request)]
    todo = [index for index in wanted if requests[index].id not in journal]
    progress = job.progress(len(wanted), "images")
    progress.advance(len(wanted) - len(todo))
    arguments = (str(job.samples.folder), {name: str(path) for name, path in files.items()})
    for index, row in run_on_devices(build_answerer, arguments, todo, available_devices()):
        journal.add(requests[index].id, row)
        progress.advance()
    journal.close()


def build_answerer(device: str, samples_dir: str, files: Mapping[str, str]) -> Callable[[int], Row]:
    """A function from the number of an image to its row, with mPLUG on `device`."""
    samples = SampleSet.open(samples_dir)
    requests = prompts_of(samples)
    items = read_questions(Path(files[QUESTIONS]), skip_first_row=False)
    with tempfile.TemporaryDirectory(prefix="mplug-") as scratch:
        answerer = Answerer({name: Path(path) for name, path in files.items()}, Path(scratch), device)

    def answer_image(index: int) -> Row:
        request = requests[index]
        item = items[prompt_item(request)]
        image_u8 = samples.images([index])[0]
        row: Row = {"id": request.id, "key": prompt_item(request), "tile": tile_of(request)}
        try:
            texts = answerer.answer(image_u8, [question.text for question in item.questions])
        except Exception as error:
            if is_environment_error(error):
                raise
            return {**row, "error": f"{type(error).__name__}: {error}"}
        return {**row, "answers": {str(q.number): text for q, text in zip(item.questions, texts, strict=True)}}

    return answer_image


def tile_of(request: Request) -> int:
    """Which of its prompt's images this is, from 0."""
    return int(request.id.rpartition("/")[2])


def is_counted(request: Request) -> bool:
    """Whether it is one of the images that fit the original's grid."""
    return tile_of(request) < IMAGES_PER_PROMPT


# --- the record ------------------------------------------------------------------------------------------------------


def unscored(requests: Sequence[Request], items: Mapping[str, Item], rows: Sequence[Row]) -> list[Unscored]:
    """Images without answers, and why."""
    strangers = [request for request in requests if prompt_item(request) not in items]
    found = [
        Unscored(id=request.id, reason_class="no-questions", reason="the question table does not have this prompt")
        for request in strangers
    ]
    failed = [row for row in rows if "error" in row]
    return found + [Unscored(id=row["id"], reason_class="scorer", reason=row["error"]) for row in failed]


def notes(dropped: Sequence[str], count: int, surplus: int, weights: Path) -> list[str]:
    """What a reader of the number must know."""
    found = []
    if dropped:
        found.append(
            "Left out of 'dpg', as the original does, because a question depends on one that is never asked, or "
            f"none is asked: {', '.join(dropped)}. 'dpg_corrected' includes them."
        )
    if surplus:
        found.append(
            f"Ignored, as the original does: {surplus:,} images beyond the first {IMAGES_PER_PROMPT} of a prompt."
        )
    if count != FULL_COUNT:
        found.append(
            f"Computed from {count:,} images; published numbers use {FULL_COUNT:,}: 1,065 prompts, 4 images each."
        )
    if weights.suffix == ".json":
        found.append("mPLUG has random weights: the numbers mean nothing.")
    return found


if __name__ == "__main__":
    raise SystemExit(run_scorer(score))
