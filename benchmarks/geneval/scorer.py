"""GenEval: sample set in, verdict per image, scores per task and overall out.

Images are judged one by one, divided among the available GPUs; each verdict is stored at once (`judged.jsonl`), so a
killed run can be resumed. Serves `geneval` and `geneval_long`, which differ only in their prompts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.geneval.clip import ASSET as CLIP
from benchmarks.geneval.clip import ColorClassifier
from benchmarks.geneval.colors import crop_object
from benchmarks.geneval.detector import ASSET as DETECTOR
from benchmarks.geneval.detector import Detector, Objects, backend_in_force
from benchmarks.geneval.interface import Options
from benchmarks.geneval.notes import notes
from benchmarks.geneval.recompute import metrics_from_items
from benchmarks.geneval.verdict import judge
from harness.contract.digest import sha256_file
from harness.contract.errors import BadSamples, EnvironmentFailure
from harness.contract.items import ItemSource
from harness.contract.record import ScoreRecord, Unscored
from harness.contract.requests import Request, RequestSet
from harness.contract.samples import SampleSet
from harness.scoring.devices import available_devices, describe_devices
from harness.scoring.journal import Journal
from harness.scoring.scorer import ScoreJob, describe_environment, is_environment_error, run_scorer
from harness.scoring.verdicts import printed, summarise, write_results
from harness.scoring.workers import run_on_devices

NAMES = "geneval-object-names"
SERVES = {"geneval": 1, "geneval_long": 1}
"""Benchmark -> its version."""
PACKAGES = ("torch", "torchvision", "mmdet", "mmcv-lite", "mmcv", "mmengine", "open-clip-torch")

Row = dict[str, Any]


def score(job: ScoreJob) -> ScoreRecord:
    started = time.monotonic()
    options = Options.read(job.options, "geneval")
    requests = prompts_of(job.samples)
    files = {name: job.assets.file(name) for name in (NAMES, DETECTOR, CLIP)}
    digests = {f"asset:{name}": sha256_file(path) for name, path in files.items()}
    devices = available_devices()
    backend = backend_in_force(options.backend, devices[0])

    journal = Journal(
        job.out / "judged.jsonl", {"samples": job.samples.digest, "options": options.as_mapping(), **digests}
    )
    progress = job.progress(len(requests), "images")
    todo = [index for index, request in enumerate(requests) if request.id not in journal]
    progress.advance(len(requests) - len(todo))
    arguments = (str(job.samples.folder), {name: str(path) for name, path in files.items()}, options)
    for index, row in run_on_devices(build_judge, arguments, todo, devices):
        journal.add(requests[index].id, row)
        progress.advance()
    journal.close()

    rows = [journal.rows[request.id] for request in requests]
    judged = [row for row in rows if "error" not in row]
    if not judged:
        raise EnvironmentFailure(f"no image could be judged; the first failed with: {rows[0]['error']}")
    job.items.extend(rows)
    write_results(job.out / "results.jsonl", judged)
    print(printed(summarise(judged)))
    source = ItemSource(benchmark=requests.benchmark, options=options.as_mapping(), asset=job.assets.file)
    return ScoreRecord(
        benchmark=requests.benchmark,
        benchmark_version=requests.version,
        metrics=metrics_from_items(rows, source),
        digests=digests,
        environment={**describe_environment(PACKAGES), "devices": describe_devices(devices), "attention": backend},
        timings_s={"judge": round(time.monotonic() - started, 3)},
        unscored=[Unscored(id=row["id"], reason_class="scorer", reason=row["error"]) for row in rows if "error" in row],
        options=options.as_mapping(),
        notes=notes(requests.benchmark, judged, files, len(rows)),
    )


def prompts_of(samples: SampleSet) -> RequestSet:
    """The requests the samples were drawn for.

    Raises:
        BadSamples: they are unknown, or of another benchmark.
    """
    requests = samples.requests
    if requests is None or SERVES.get(requests.benchmark) != requests.version:
        found = "unknown prompts" if requests is None else f"{requests.benchmark} version {requests.version}"
        raise BadSamples(
            f"{samples.folder}: was drawn for {found}, not for geneval's prompts; draw samples for them: harness run "
            "--benchmark geneval, or score a folder made for the original: harness score geneval --samples DIR "
            "--layout geneval"
        )
    wrong = next((request for request in requests if not {"tag", "include", "prompt"} <= set(request.meta)), None)
    if wrong is not None:
        raise BadSamples(f"{samples.folder}: {wrong.id} has no tag or no objects to look for; make the requests again.")
    return requests


# --- judging, in a worker --------------------------------------------------------------------------------------------


def build_judge(device: str, samples_dir: str, files: Mapping[str, str], options: Options) -> Callable[[int], Row]:
    """A function from the number of an image to its row, with both networks on `device`."""
    torch.set_float32_matmul_precision("highest")
    samples = SampleSet.open(samples_dir)
    requests = prompts_of(samples)
    names = [line.strip() for line in Path(files[NAMES]).read_text(encoding="utf-8").splitlines() if line.strip()]
    detector = Detector(Path(files[DETECTOR]), names, device, options.backend)
    colors = ColorClassifier(Path(files[CLIP]), device, options.clip_precision)

    def judge_image(index: int) -> Row:
        image_u8 = samples.images([index])[0]
        try:
            return judge_one(requests[index], image_u8, detector, colors, options)
        except Exception as error:
            if is_environment_error(error):
                raise
            return {"id": requests[index].id, "error": f"{type(error).__name__}: {error}"}

    return judge_image


def judge_one(request: Request, image_u8: Any, detector: Detector, colors: ColorClassifier, options: Options) -> Row:
    """Detect objects, classify colours where the prompt names any, decide."""
    found: Objects = detector.find(image_u8)

    def classify(name: str, rows: Sequence[int]) -> list[str]:
        crops = [
            crop_object(
                image_u8,
                found.boxes[name][row],
                found.masks[name][row],
                background=options.background,
                crop=options.crop,
            )
            for row in rows
        ]
        return colors.classify(name, crops)

    verdict = judge(request.meta, found.boxes, classify, options)
    return {
        "id": request.id,
        "filename": request.path,
        "tag": request.meta["tag"],
        "prompt": request.meta["prompt"],
        "correct": verdict.correct,
        "reason": "\n".join(verdict.reasons),
        "metadata": dict(request.meta),
        "details": dict(verdict.details),
    }


if __name__ == "__main__":
    raise SystemExit(run_scorer(score))
