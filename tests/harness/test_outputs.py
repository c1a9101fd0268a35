from __future__ import annotations

from pathlib import Path

import numpy as np

from harness.contract import Protocol, SampleSetWriter, class_requests
from harness.digests import DigestMemo
from harness.outputs import digest_of


def draw(folder: Path, run_seed: int) -> Path:
    requests = class_requests("toy", 1, Protocol(image_size=4), count=6, num_classes=3, run_seed=run_seed)
    writer = SampleSetWriter(folder, requests, {"name": "grey"}, "npz", 6)
    for shard in writer.missing():
        writer.write(shard, np.full((len(shard), 4, 4, 3), 128, np.uint8))
    writer.finish()
    return folder


def test_the_same_pixels_for_other_requests_count_as_other_samples(tmp_path: Path) -> None:
    memo = DigestMemo(tmp_path / "memo")
    one, again, other = (digest_of("sample", draw(tmp_path / str(i), seed), memo) for i, seed in enumerate((0, 0, 1)))
    assert one == again
    assert one != other
