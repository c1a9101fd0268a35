"""A model file small enough to be sampled in a second, and the command on it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gear.ar.model import ClassConditionalAR
from gear.tokenizers import build_tokenizer
from harness.contract.requests import RequestSet, SamplingProtocol, class_requests
from tests.gear import tiny


@pytest.fixture(scope="session")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `gear train` leaves, with random weights: 8-pixel images, 16 tokens, 3 classes."""
    config = tiny.config()
    torch.manual_seed(0)
    ar = ClassConditionalAR(config.ar)
    torch.nn.init.normal_(ar.output.weight, std=0.5)
    path = tmp_path_factory.mktemp("model") / "model.pt"
    parts = {"vq": build_tokenizer(config.tokenizer).state_dict(), "ar": ar.state_dict()}
    torch.save({"config": config.to_dict(), "phase": "ar", "steps": 1, **parts}, path)
    return path


def toy_requests(count: int = 60) -> RequestSet:
    protocol = SamplingProtocol(image_size=8, cfg_scale=2.0, top_k=12)
    return class_requests("toy", 1, protocol, count=count, num_classes=3)


def sample_command(model: Path, requests: Path, out: Path, *more: object) -> list[str]:
    words = ["sample", "--ckpt", model, "--requests", requests, "--out", out, *more]
    return [sys.executable, "-m", "gear", "-q", *map(str, words)]


def run(command: list[str], **environment: str) -> str:
    """Stdout of a command that must succeed."""
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1", **environment}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
