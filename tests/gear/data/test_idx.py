from __future__ import annotations

import gzip
import random
import tracemalloc
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


@pytest.mark.parametrize("sides", [(0xFFFFFFFF, 1, 1), (1 << 30, 2, 2), (0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF)])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_few_bytes_that_ask_for_gigabytes_get_none(tmp_path: Path, sides: tuple[int, ...], suffix: str) -> None:
    content = bytes([0, 0, 8, 3]) + b"".join(side.to_bytes(4, "big") for side in sides)
    path = tmp_path / f"train-images-idx3-ubyte{suffix}"
    path.write_bytes(gzip.compress(content) if suffix else content)
    tracemalloc.start()
    with pytest.raises(UserError, match=r"idx3-ubyte(\.gz)? says that it holds .* bytes, which cannot be"):
        read_idx(path, ndim=3)
    assert tracemalloc.get_traced_memory()[1] < 1 << 22
    tracemalloc.stop()


@pytest.mark.parametrize("seed", range(4))
def test_any_change_of_a_file_is_an_array_or_a_sentence(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    whole = idx(np.arange(60, dtype=np.uint8).reshape(5, 4, 3))
    for suffix in ("", ".gz"):
        for _ in range(40):
            content = bytearray(gzip.compress(whole) if suffix else whole)
            for _ in range(rng.randrange(1, 3)):
                place = rng.randrange(len(content))
                content[place : place + rng.randrange(2)] = rng.randbytes(rng.randrange(3))
            path = tmp_path / f"x{suffix}"
            path.write_bytes(bytes(content))
            try:
                assert read_idx(path, ndim=3).ndim == 3
            except UserError:
                continue


def test_more_than_the_header_says_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(idx(np.zeros(5, np.uint8)) + b"!")
    with pytest.raises(UserError, match="holds more than the 5 bytes"):
        read_idx(tmp_path / "x", ndim=1)
