"""A toy project: a benchmark whose scorer, generator and assets are real and tiny. Nothing is mocked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.catalog.assets import AssetStore
from harness.catalog.benchmarks import Catalog
from harness.catalog.project import PACKAGE_DIR, Project
from harness.planning.generators import command_generator
from harness.planning.make import RunSpec, make_plan
from harness.planning.steps import Generator, Plan
from harness.running.execute import run_plan
from harness.running.setting import Setting
from harness.runtimes.venv import VenvRuntime
from harness.schedulers.here import Here, Machine
from harness.store.digests import DigestMemo
from harness.store.run_record import RunRecord, StepResult
from tests.harness.small_sets import class_set, make_samples, prompt_set

__all__ = ["class_set", "make_samples", "prompt_set"]

BENCHMARK = """
id: toy
version: 1
title: "Toy: how bright the images are"
summary: The mean of all pixels, on the scale of the reference.
suites: [toys]
condition: class
requests: {kind: classes, count: 12, num_classes: 3, labels: balanced}
protocol: {image_size: 8}
form: npz
scorer: {script: scorer.py, image: toy}
assets: [toy-reference]
published: [{model: Sun, source: sky, protocol: noon, metrics: {brightness: 255.0}}]
check:
  samples: check/samples.npz
  assets: check/assets
  options: {scale: 2.0}
  expected: {brightness: {value: 20.0, rel: 1.0e-6}}
"""

ASSETS = """
- {name: toy-reference, file: reference.txt, sha256: null, size: null, licence: CC0, used_by: [toy]}
"""

INTERFACE = """
    from dataclasses import dataclass
    from typing import Annotated

    from harness.contract.fields import Within
    from harness.contract.interface import MetricSpec, ScorerOptions

    METRICS = (MetricSpec("brightness", "Brightness", higher_is_better=True),)


    @dataclass(frozen=True, kw_only=True)
    class Options(ScorerOptions):
        scale: float = 1.0
        refuse: Annotated[int, Within(0)] = 0
"""

SCORER = """
    from benchmarks.toy.brightness import brightness
    from benchmarks.toy.interface import Options
    from benchmarks.toy.recompute import metrics_from_items
    from harness.contract.record import ScoreRecord, Unscored
    from harness.scoring.scorer import run_scorer


    def score(job):
        options = Options.read(job.options, "toy")
        reference = float(job.assets.file("toy-reference").read_text())
        progress = job.progress(len(job.samples), "images")
        values = []
        for images_u8 in job.samples.batches(4):
            values += [brightness(image) * options.scale * reference for image in images_u8]
            progress.advance(len(images_u8))
        print("scored", len(values))
        refused = job.samples.ids[: options.refuse]
        left_out = [Unscored(id=name, reason_class="whim", reason="asked to") for name in refused]
        job.items.extend({"id": name, "value": value} for name, value in zip(job.samples.ids, values))
        metrics = metrics_from_items(job.items, None)
        return ScoreRecord(benchmark="toy", benchmark_version=1, metrics=metrics, unscored=left_out)


    if __name__ == "__main__":
        raise SystemExit(run_scorer(score))
"""

RECOMPUTE = """
    from benchmarks.toy.interface import METRICS
    from harness.contract.interface import Metrics
    from harness.contract.items import ItemValue


    def metrics_from_items(items, source):
        values = [row["value"] for row in items]
        return [Metrics(METRICS).make("brightness", sum(values) / len(values), n=len(values))]


    def values_from_items(items, source):
        for row in items:
            yield ItemValue(metric="brightness", item=row["id"], value=row["value"], prompt=row["id"])
"""

BRIGHTNESS = """
    def brightness(image_u8):
        return float(image_u8.mean())
"""

GENERATOR = """
    import argparse, os, sys, time
    from pathlib import Path

    import numpy as np

    from harness.contract.progress import Progress
    from harness.contract.requests import RequestSet
    from harness.contract.writer import SampleSetWriter

    parser = argparse.ArgumentParser()
    parser.add_argument("--requests", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--nap", type=float, default=0.0, help="seconds per shard")
    parser.add_argument("--fail", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.fail:
        print("I was told to fail", file=sys.stderr)
        sys.exit(arguments.fail)
    requests = RequestSet.read(arguments.requests)
    writer = SampleSetWriter(arguments.out, requests, {"name": "toy"}, shard_size=2)
    progress = Progress(len(requests), "images")
    for shard in writer.missing():
        if "TOY_TRACE" in os.environ:  # gets a line per shard that is drawn
            with open(os.environ["TOY_TRACE"], "a") as trace:
                print(shard.index, file=trace)
        size = requests.protocol.image_size
        streams = [np.random.default_rng(request.seed) for request in shard.requests]
        images = [stream.integers(0, 256, (size, size, 3), dtype=np.uint8) for stream in streams]
        time.sleep(arguments.nap)
        writer.write(shard, np.stack(images))
        progress.advance(len(shard))
    writer.finish()
"""


@dataclass
class Toy:
    """The toy project and the folders a run needs."""

    root: Path
    project: Project
    reference: Path
    generator: Path

    @property
    def trace(self) -> Path:
        return self.root / "trace.txt"

    def drawn(self) -> list[int]:
        """Numbers of the shards that were begun, in order."""
        return [int(word) for word in self.trace.read_text().split()] if self.trace.exists() else []

    @property
    def home(self) -> Path:
        return self.root / "home"

    @property
    def runs_dir(self) -> Path:
        return self.root / "runs"

    @property
    def catalog(self) -> Catalog:
        return Catalog.load(self.project)

    def setting(self, **changes: Any) -> Setting:
        memo = DigestMemo(self.home / "digests")
        overrides = {"toy-reference": self.reference}
        fields: dict[str, Any] = {
            "runtime": VenvRuntime(self.project, self.home),
            "assets": AssetStore(self.home / "assets", self.catalog.assets, memo, overrides),
            "memo": memo,
            "runs_dir": self.runs_dir,
            "scheduler": Here(Machine(memory_gb=8.0, cpus=2)),
        }
        return Setting(**{**fields, **changes})

    def command(self, *words: object) -> Generator:
        line = " ".join([sys.executable, str(self.generator), *map(str, words)])
        return command_generator(line, cwd=self.root)

    def plan(self, *words: object, **request: Any) -> Plan:
        fields: dict[str, Any] = {"benchmarks": ("toy",), "generator": self.command(*words)}
        return make_plan(RunSpec(**{**fields, **request}), self.catalog)

    def run(self, *words: object, force: bool = False, **request: Any) -> RunRecord:
        record, _ = run_plan(self.plan(*words, **request), self.setting(), force=force)
        return record

    def edit(self, name: str, before: str, after: str) -> None:
        path = self.root / name
        text = path.read_text()
        assert before in text
        path.write_text(text.replace(before, after))

    def harness(self, *words: object, **options: Any) -> subprocess.Popen[str]:
        """The real command, as another process."""
        argv = [sys.executable, "-m", "harness", *map(str, words)]
        options = {"cwd": self.root, "text": True, **options}
        return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)

    def run_words(self, *words: object) -> list[str]:
        """The words of `harness run` for this toy, with its generator given `words`."""
        line = " ".join([sys.executable, str(self.generator), *map(str, words)])
        return ["run", "--benchmark", "toy", "--generator", line, "--asset", f"toy-reference={self.reference}"]


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Toy:
    folder = tmp_path / "benchmarks" / "toy"
    (folder / "check" / "assets" / "toy-reference").mkdir(parents=True)
    (folder / "benchmark.yaml").write_text(BENCHMARK)
    (folder / "assets.yaml").write_text(ASSETS)
    (folder / "interface.py").write_text(textwrap.dedent(INTERFACE))
    (folder / "scorer.py").write_text(textwrap.dedent(SCORER))
    (folder / "recompute.py").write_text(textwrap.dedent(RECOMPUTE))
    (folder / "brightness.py").write_text(textwrap.dedent(BRIGHTNESS))
    np.savez(folder / "check" / "samples.npz", arr_0=np.full((3, 8, 8, 3), 10, np.uint8))
    (folder / "check" / "assets" / "toy-reference" / "reference.txt").write_text("1.0")
    generator = tmp_path / "my_model.py"
    generator.write_text(textwrap.dedent(GENERATOR))
    reference = tmp_path / "reference.txt"
    reference.write_text("1.0")
    monkeypatch.setenv("HARNESS_BENCHMARKS", str(tmp_path / "benchmarks"))
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TOY_TRACE", str(tmp_path / "trace.txt"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(PACKAGE_DIR.parent), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.chdir(tmp_path)
    project = Project(benchmark_dirs=(tmp_path / "benchmarks",), docker_dirs=(tmp_path / "docker",))
    return Toy(root=tmp_path, project=project, reference=reference, generator=generator)


@pytest.fixture
def statuses() -> Callable[[RunRecord], dict[str, str]]:
    """Step -> how it came about."""
    return lambda record: {step.name: step.status for step in record.steps}


@pytest.fixture
def score_of() -> Callable[[Path, RunRecord], float]:
    """The toy's one number."""

    def read(runs_dir: Path, record: RunRecord) -> float:
        step: StepResult = record.step("score-toy")
        row = json.loads((runs_dir / record.run / step.folder / "output" / "score.json").read_text())
        return float(row["metrics"][0]["value"])

    return read
