from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from gear.data.idx import IdxSource, read_idx
from harness.contract.errors import UserError


def idx(array: np.ndarray) -> bytes:
    sizes = b"".join(side.to_bytes(4, "big") for side in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for split, count in (("train", 6), ("t10k", 3)):
        images = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) % 4).astype(np.uint8)
        (tmp_path / f"{split}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
        (tmp_path / f"{split}-labels-idx1-ubyte").write_bytes(idx(labels))
    return tmp_path


def test_both_splits_plain_or_compressed(folder: Path) -> None:
    train, validation = IdxSource(folder, 28, random_hflip=False), IdxSource(folder, 28, train=False)
    assert (len(train), len(validation), train.num_classes) == (6, 3, 4)
    sample = train.item(5, np.random.default_rng(0))
    expected = read_idx(folder / "train-images-idx3-ubyte.gz", ndim=3)[5]
    assert sample.label == 1 and all(np.array_equal(channel, expected) for channel in sample.image_u8)


def test_images_are_resized_to_the_training_size(folder: Path) -> None:
    assert IdxSource(folder, 32).item(0, np.random.default_rng(0)).image_u8.shape == (3, 32, 32)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is not an IDX file"),
        (b"\0\0\x08\x01\0\0\0\x05abc", "is not an IDX file"),
        (idx(np.zeros((2, 2, 2), np.uint8))[:-1], "7 of 8"),
    ],
)
def test_a_damaged_file_is_named(folder: Path, content: bytes, problem: str) -> None:
    (folder / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(content))
    with pytest.raises(UserError, match=problem):
        IdxSource(folder, 28)


def test_a_file_that_is_not_gzip_or_missing_is_named(folder: Path) -> None:
    (folder / "train-images-idx3-ubyte.gz").write_bytes(b"plain")
    with pytest.raises(UserError, match=r"images-idx3-ubyte\.gz cannot be read"):
        IdxSource(folder, 28)
    (folder / "train-images-idx3-ubyte.gz").unlink()
    with pytest.raises(UserError, match="holds no file named train-images-idx3-ubyte"):
        IdxSource(folder, 28)


def test_labels_that_do_not_match_are_refused(folder: Path) -> None:
    (folder / "train-labels-idx1-ubyte").write_bytes(idx(np.zeros(5, np.uint8)))
    with pytest.raises(UserError, match="5 labels for 6 images"):
        IdxSource(folder, 28)
