"""The text-to-image suite from nothing, as a user runs it on the released model: `assets pull`, then one command.

The files have the layouts of the real ones, with few numbers or random ones in them: those of the gold checks, and tiny
models in the place of GEAR-T2I-GPIC-1B, its tokenizer and its text encoder. The judge is a program that answers every
question; everything else is what a user has.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks.wise import replay
from harness.catalog.benchmarks import Catalog
from harness.catalog.project import find_project, home_dir
from harness.store.run_record import Run
from tests.gear.bench.models import config, write_encoder, write_model, write_published

ROOT = Path(__file__).parents[2]
PRESET = "gear-t2i-gpic-1b"
IMAGES = 8
"""Of each benchmark; precision and recall of GPIC need more images than neighbours."""


class Judge(replay.ReplayServer):
    """Sees an image in every question, and gives it one point."""

    def next_line(self, question: str) -> replay.Line:
        return replay.Line(text="Score: 1")


def lines(rows: list[dict[str, object]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def write_prompts(folder: Path) -> dict[str, Path]:
    """The prompt files that the list has by digest, in our own words and in the number that is asked for."""
    bench = {"tag": "single_object", "include": [{"class": "bench", "count": 1}]}
    with (ROOT / "benchmarks/dpg/check/assets/dpg-questions/dpg_bench.csv").open(encoding="utf-8") as stream:
        items = list(dict.fromkeys(row["item_id"] for row in csv.DictReader(stream)))
    items += [f"prompt-{number}" for number in range(1065 - len(items))]
    wise = {
        "wise-cultural-common-sense": ("Cultural knowledge", 1, 400),
        "wise-spatio-temporal-reasoning": ("Time", 401, 300),
        "wise-natural-science": ("Biology", 701, 300),
    }
    words = {"Prompt": "a picture of plants", "Explanation": "plants are green", "Subcategory": "any"}
    texts = {
        "geneval-prompts": lines([{**bench, "prompt": f"a photo of bench {n}"} for n in range(553)]),
        "geneval-prompts-long": lines([{**bench, "prompt": f"a long photo of bench {n}"} for n in range(553)]),
        "dpg-prompts": json.dumps({f"{item}.txt": f"a picture of {item}" for item in items}),
        "gpic-prompts": lines(
            [{"key": f"k{n}", "caption": f"caption {n}", "caption_type": "short"} for n in range(120)]
        ),
        **{
            name: json.dumps([{**words, "Category": area, "prompt_id": first + n} for n in range(count)])
            for name, (area, first, count) in wise.items()
        },
    }
    assets = Catalog.load(find_project()).assets
    for name, text in texts.items():
        (folder / name).mkdir(parents=True)
        (folder / name / assets[name].file).write_text(text, encoding="utf-8")
    return {name: folder / name / assets[name].file for name in texts}


def write_mirror(mirror: Path) -> dict[str, Path]:
    """What `assets pull --mirror` fetches, and what takes the place of files that only the real ones can be."""
    catalog = Catalog.load(find_project())
    own = {}
    for name in dict.fromkeys(name for benchmark in catalog.suite("t2i") for name in benchmark.needed_assets):
        asset = catalog.asset(name)
        given = next((ROOT / "benchmarks").glob(f"*/check/assets/{name}"), None)
        if given is None:
            continue  # a list of prompts
        pinned = asset.sha256 or asset.sha256_prefix or asset.git_blob
        if asset.files and not pinned:
            shutil.copytree(given, mirror / name / asset.file)
        elif (given / asset.file).is_file() and not pinned:
            (mirror / name).mkdir(parents=True)
            shutil.copy(given / asset.file, mirror / name / asset.file)
        else:
            own[name] = given
    run = config("t2i")
    write_published(mirror / PRESET / f"{PRESET}.pt", run, text_encoder="Qwen/Qwen3-1.7B", n_head=2, image_size=256)
    write_model(mirror / "gear-vq" / "gear-vq.pt", config(), parts=("vq",))
    write_encoder(mirror / "qwen3-1.7b" / "Qwen3-1.7B")
    return own


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A mirror, an empty home that knows the environments of this machine, a judge; own files by asset."""
    root = tmp_path_factory.mktemp("t2i")
    (home_dir() / "envs").mkdir(parents=True, exist_ok=True)
    (root / "home").mkdir()
    (root / "home" / "envs").symlink_to(home_dir() / "envs")
    own = {**write_mirror(root / "mirror"), **write_prompts(root / "prompts")}
    return {"": root, **own}


def harness(root: Path, *words: object, **variables: str) -> str:
    command = [sys.executable, "-m", "harness", *map(str, words)]
    environment = {**os.environ, "HARNESS_HOME": str(root / "home"), "PYTHONPATH": str(ROOT), **variables}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["venv", pytest.param("docker", marks=pytest.mark.engine)])
def test_the_suite_from_an_empty_home_to_the_report(runtime: str, world: dict[str, Path]) -> None:
    root = world[""]
    own = [word for name, path in world.items() if name for word in ("--asset", f"{name}={path}")]
    command = ["run", "--suite", "t2i", "--preset", PRESET, "--limit", IMAGES, "--runtime", runtime, "--name", runtime]
    names = sorted(path.name for path in (root / "mirror").iterdir())
    assert {PRESET, "gear-vq", "qwen3-1.7b", "dinov2-vitl14"} <= set(names)
    harness(root, "assets", "pull", *names, "--mirror", root / "mirror")
    with judge(own_address(runtime)) as address:
        variables = {"HARNESS_JUDGE_URL": address, "HARNESS_JUDGE_BACKOFF_S": "0.1"}
        options = ["--set", "wise.judge=judge", "--set", "geneval.threshold=0.0", "--set", "coco.image_size=32"]
        harness(root, *command, *own, *options, **variables)
        run = Run.read(root / "runs" / runtime)
        assert run.record.status == "finished", run.record
        assert set(run.scores) == {"coco", "dpg", "geneval", "geneval_long", "gpic", "wise"}
        assert all(metric.n <= IMAGES * 10 for score in run.scores.values() for metric in score.metrics)
        scales = {name: score.protocol["cfg_scale"] for name, score in run.scores.items()}
        assert scales == {"coco": 1.5, "dpg": 4.0, "geneval": 4.0, "geneval_long": 4.0, "gpic": 1.0, "wise": 4.0}
        assert run.record.generator["ckpt"] == f"asset {PRESET}"
        assert (run.folder / "report.html").stat().st_size > 20_000
        harness(root, *command, *own, *options, **variables)
    again = Run.read(root / "runs" / runtime).record
    assert {step.status for step in again.steps} == {"cached"}


@contextmanager
def judge(host: str) -> Iterator[str]:
    """The address of a judge that listens on one of this machine's addresses."""
    server = Judge({}, "judge", (host, 0))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://{host}:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()


def own_address(runtime: str) -> str:
    """Where a step finds a server of this machine: a container sees it behind the engine's bridge."""
    if runtime == "venv":
        return "127.0.0.1"
    asked = ["docker", "network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Gateway}}"]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
