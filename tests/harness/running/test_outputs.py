from __future__ import annotations

from pathlib import Path

import numpy as np

from harness.contract import SampleSetWriter, SamplingProtocol, class_requests
from harness.contract.adopt import convert, sample_set_from_npz
from harness.running.outputs import digest_of
from harness.store.digests import DigestMemo


def draw(folder: Path, run_seed: int) -> Path:
    requests = class_requests("toy", 1, SamplingProtocol(image_size=4), count=6, num_classes=3, run_seed=run_seed)
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


def taken_in(folder: Path, labels: np.ndarray, generator: dict[str, str]) -> Path:
    folder.mkdir()
    np.savez(folder / "theirs.npz", arr_0=np.full((6, 4, 4, 3), 128, np.uint8), labels=labels)
    return sample_set_from_npz(folder / "theirs.npz", folder / "samples", generator=generator).folder


def test_the_same_pixels_with_other_labels_or_from_another_kind_of_generator_count_as_other_samples(tmp_path) -> None:
    memo, drawn, rebuilt = DigestMemo(tmp_path / "memo"), {"kind": "drawn"}, {"kind": "reconstructions"}
    cases = [(np.zeros(6, int), drawn), (np.zeros(6, int), drawn), (np.arange(6), drawn), (np.zeros(6, int), rebuilt)]
    one, again, other_labels, other_kind = (
        digest_of("sample", taken_in(tmp_path / str(i), *case), memo) for i, case in enumerate(cases)
    )
    assert one == again
    assert len({one, other_labels, other_kind}) == 3


def test_the_form_of_a_sample_set_does_not_count(tmp_path: Path) -> None:
    memo, npz = DigestMemo(tmp_path / "memo"), draw(tmp_path / "npz", 0)
    convert(npz, tmp_path / "png", "png")
    assert digest_of("sample", npz, memo) == digest_of("sample", tmp_path / "png", memo)
