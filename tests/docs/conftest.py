"""A folder in which the commands of the pages can run: small files and models under the names that the pages use."""

from __future__ import annotations

import os
import shutil
import textwrap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from gear.tokenizers import VQConfig, build_tokenizer
from harness.contract import SamplingProtocol, class_requests
from tests.docs.pages import ROOT
from tests.gear.bench import models

BENCHMARK = """
id: {name}
version: 1
title: "{name}: how bright the images are"
summary: The mean of all pixels.
suites: []
condition: class
requests: {{kind: classes, count: 12, num_classes: 3, labels: balanced}}
protocol: {{image_size: 16}}
form: npz
scorer: {{script: scorer.py}}
"""

INTERFACE = """
from dataclasses import dataclass

from harness.contract.interface import MetricSpec, ScorerOptions

METRICS = (MetricSpec("{metric}", "Brightness", higher_is_better=True),)


@dataclass(frozen=True, kw_only=True)
class Options(ScorerOptions):
    batch_size: int = 64
"""

SCORER = """
from benchmarks.{name}.interface import METRICS, Options
from harness.contract import ScoreRecord
from harness.contract.interface import Metrics
from harness.scoring.scorer import run_scorer


def score(job):
    options = Options.read(job.options, "{name}")
    values = [image.mean() for batch in job.samples.batches(options.batch_size) for image in batch]
    job.items.extend({{"id": name, "value": float(value)}} for name, value in zip(job.samples.ids, values))
    metric = Metrics(METRICS).make("{metric}", float(sum(values) / len(values)), n=len(values))
    return ScoreRecord(benchmark="{name}", benchmark_version=1, metrics=[metric])


if __name__ == "__main__":
    raise SystemExit(run_scorer(score))
"""

SMALL = {"small_adm": "gfid", "small_geneval": "geneval", "small_dpg": "dpg"}
"""Benchmarks that a test can afford in the place of shipped ones -> the metric that the pages read."""

LINKED = ("examples", "scripts", "docker", "tests", "compose.yaml", "compose.gpu.yaml", "Makefile")
"""What the pages name by its place in the checkout."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The current folder of the module's tests."""
    root = tmp_path_factory.mktemp("world")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for name, value in variables(root).items():
            patch.setenv(name, value)
        for name in LINKED:
            (root / name).symlink_to(ROOT / name)
        write_benchmarks(root / "benchmarks")
        write_samples(root)
        write_models(root)
        write_data(root)
        take_in_assets()
        score_runs()
        yield root


def variables(root: Path) -> dict[str, str]:
    """The environment of the commands."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    return {
        "HARNESS_BENCHMARKS": str(root / "benchmarks"),
        "HARNESS_HOME": str(root / "home"),
        "PYTHONPATH": path,
        "COLUMNS": "160",
    }


def write_benchmarks(folder: Path) -> None:
    """The benchmarks in SMALL."""
    for name, metric in SMALL.items():
        (folder / name).mkdir(parents=True)
        for file, text in (("benchmark.yaml", BENCHMARK), ("interface.py", INTERFACE), ("scorer.py", SCORER)):
            content = text.format(name=name, metric=metric).lstrip()
            (folder / name / file).write_text(content, encoding="utf-8")


def write_samples(root: Path) -> None:
    """Archives, folders of images, a request set, a sample set."""
    rng = np.random.default_rng(0)
    for name in ("samples", "other", "seed0", "seed1", "seed2"):
        np.savez(root / f"{name}.npz", arr_0=rng.integers(0, 256, (6, 16, 16, 3), np.uint8))
    (root / "cut-short.npz").write_bytes((root / "samples.npz").read_bytes()[:2000])
    class_requests("small_adm", 1, SamplingProtocol(image_size=8), count=6, num_classes=3).write(root / "REQUESTS")
    shutil.copytree(ROOT / "benchmarks/geneval/check/samples", root / "SAMPLES")
    for name in ("folder", "DIR"):
        (root / name).mkdir()
    shutil.copy(ROOT / "examples/my_generator.py", root / "my_model.py")


def write_models(root: Path) -> None:
    """Tiny models: what `gear train` leaves, and the layouts of published files."""
    digits = models.config(image_size=32, num_classes=10, downsample=4)
    for name in ("tokenizer", "e2e", "ar", "stage1"):
        models.write_model(root / "exps" / name / "model.pt", digits)
    models.write_model(root / "exps/xl/model.pt", models.config())
    models.write_model(root / "gear-vq.pt", models.config(), parts=("vq",))
    models.write_published(root / "gear-t2i-gpic-1b.pt", models.config("t2i"), n_head=2)
    models.write_encoder(root / "Qwen3-1.7B")
    narrow = VQConfig(
        ch=32,
        num_res_blocks=1,
        encoder_ch_mult=(1, 1, 1, 1, 1),
        decoder_ch_mult=(1, 1, 1, 1, 1),
        z_channels=16,
        codebook_size=64,
        codebook_embed_dim=8,
    )
    torch.save({"model": build_tokenizer(narrow).state_dict()}, root / "vq_ds16_c2i.pt")


def write_data(root: Path) -> None:
    """Pictures, and class folders of them."""
    picture = Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 40, 3), np.uint8))
    picture.save(root / "cat.jpg")
    for folder in ("photos", "digits-folder/one", "digits-folder/two"):
        (root / folder).mkdir(parents=True)
        picture.save(root / folder / "picture.png")


def take_in_assets() -> None:
    """The shipped small files of adm in the place of the real ones."""
    from harness.cli import main

    for folder in sorted((ROOT / "benchmarks/adm/check/assets").iterdir()):
        (file,) = folder.iterdir()
        done = CliRunner().invoke(main, ["assets", "import", folder.name, str(file)])
        assert done.exit_code == 0, done.output


def score_runs() -> None:
    """The runs `first` and `second`, which pages show, compare and export."""
    import harness

    for name, file in (("first", "samples.npz"), ("second", "other.npz")):
        harness.score("small_adm", file, name=name)


def small_names(code: str) -> str:
    """Code of a page with the shipped benchmarks' names replaced by those that a test can afford."""
    for name in SMALL:
        code = code.replace(f'"{name.removeprefix("small_")}"', f'"{name}"')
    return textwrap.dedent(code).replace('metric("small_geneval")', 'metric("geneval")')
