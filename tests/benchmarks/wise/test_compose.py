"""`docker compose run wise`: the judge beside the scorer, on a network of their own."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[3]
JUDGE = """
import ctypes
import pathlib
import shutil
import time

import _ctypes

from benchmarks.wise import replay

ctypes.CDLL(shutil.copy(_ctypes.__file__, pathlib.Path.home()))  # as Triton does with what it compiled

class AnyQuestion(replay.ReplayServer):
    def next_line(self, question):
        return replay.Line(text="Score: 1")

time.sleep(5)  # a judge that loads its weights
AnyQuestion({}, "Qwen3.5-35B-A3B", ("0.0.0.0", 8000)).serve_forever()
"""
OVERRIDE = """
services:
  wise-judge:
    entrypoint: [python, /judge/judge.py]
    volumes: ["{folder}:/judge:ro"]
"""


def test_the_judge_may_load_the_kernels_that_it_compiles() -> None:
    """Below $HOME, which is /tmp in its image: Docker mounts a tmpfs noexec unless it is told otherwise."""
    judge = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]["wise-judge"]
    (places,) = [options for path, _, options in (mount.partition(":") for mount in judge["tmpfs"]) if path == "/tmp"]
    assert "exec" in places.split(",")
    assert judge["read_only"] and "HOME=/tmp " in (ROOT / "docker/wise/Dockerfile").read_text()


@pytest.mark.engine
def test_compose_starts_the_judge_waits_until_it_can_see_and_scores(tmp_path: Path) -> None:
    """vLLM itself needs a GPU: a server of the same interface takes its place. All around it is as users get it."""
    for name in ("judge", "scores"):
        (tmp_path / name).mkdir(mode=0o755)
    (tmp_path / "judge" / "judge.py").write_text(JUDGE)
    (tmp_path / "override.yaml").write_text(OVERRIDE.format(folder=tmp_path / "judge"))
    files = ["-f", str(ROOT / "compose.yaml"), "-f", str(tmp_path / "override.yaml")]
    compose = ["docker", "compose", "-p", f"gear-{tmp_path.name}".replace("_", "-"), *files]
    environment = {
        **os.environ,
        "SAMPLES_DIR": str(ROOT / "benchmarks/wise/check/samples"),
        "ASSETS_DIR": str(ROOT / "benchmarks/wise/check/assets"),
        "SCORES_DIR": str(tmp_path / "scores"),
        "UID": str(os.getuid()),
        "GID": str(os.getgid()),
    }
    try:
        ran = subprocess.run(
            [*compose, "run", "--build", "--rm", "wise"], env=environment, capture_output=True, text=True
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        outside = subprocess.run(
            [*compose, "port", "wise-judge", "8000"], env=environment, capture_output=True, text=True, check=False
        )
    finally:
        subprocess.run(
            [*compose, "down", "--volumes", "--timeout", "1"], env=environment, check=True, capture_output=True
        )
    record = json.loads((tmp_path / "scores" / "score.json").read_text())
    scores = {metric["name"]: metric["value"] for metric in record["metrics"] if metric.get("category") is None}
    assert scores["wiscore"] == 1.0
    assert outside.stdout.strip() in ("", ":0"), "the judge took a port of this machine"
