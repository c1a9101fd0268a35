"""Small request sets and sample sets, made for real by the code under test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from harness.contract import (
    Prompt,
    RequestSet,
    SampleSet,
    SampleSetWriter,
    SamplingProtocol,
    class_requests,
    prompt_requests,
)

GENERATOR = {"name": "noise", "options": {"scale": 1.5}}


def draw(requests: RequestSet, start: int = 0, stop: int | None = None) -> np.ndarray:
    """Noise that depends on the seed of each request only, (n, H, W, 3) uint8."""
    size = requests.protocol.image_size
    chosen = requests.requests[start:stop]
    return np.stack([np.random.default_rng(r.seed).integers(0, 256, (size, size, 3), np.uint8) for r in chosen])


@pytest.fixture
def class_set() -> RequestSet:
    return class_requests("adm", 1, SamplingProtocol(image_size=8), count=10, num_classes=4)


@pytest.fixture
def prompt_set() -> RequestSet:
    prompts = [Prompt(item=f"{i:05d}", text=f"a photo of {i} Füchse", meta={"tag": "counting"}) for i in range(3)]
    layout = "{index:05d}/samples/{repeat:04d}.png"
    return prompt_requests("geneval", 2, SamplingProtocol(image_size=8), prompts=prompts, repeats=2, layout=layout)


@pytest.fixture
def make_samples(tmp_path: Path) -> Callable[..., SampleSet]:
    """Writes a whole sample set for a request set: `make_samples(requests, form="png", name="folder")`."""

    def make(requests: RequestSet, form: str = "npz", name: str = "samples") -> SampleSet:
        writer = SampleSetWriter(tmp_path / name, requests, GENERATOR, form=form, shard_size=4)  # type: ignore[arg-type]
        for shard in writer.missing():
            writer.write(shard, draw(requests, shard.start, shard.stop))
        return writer.finish()

    return make
