from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.recon.pairs import PairSet
from gear.data.transforms import center_crop, short_side_resize
from gear.pairs import write_pairs
from gear.tokenizers import build_tokenizer
from harness.contract.errors import UserError
from tests.gear.tiny import IMAGE_SIZE, config


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for index in range(5):
        Image.fromarray(generator.integers(0, 256, (13, 20, 3), dtype=np.uint8)).save(folder / f"{index}.png")
    return folder


@pytest.mark.parametrize("resample", ["bicubic", "bilinear"])
def test_pairs_are_what_the_benchmark_reads_unrounded_and_in_order(images: Path, tmp_path: Path, resample: str) -> None:
    torch.manual_seed(0)
    tokenizer = build_tokenizer(config().tokenizer).eval()
    count = write_pairs(
        tokenizer, str(images), tmp_path / "pairs", IMAGE_SIZE, resample=resample, limit=4, made={"ema": True}
    )
    pairs = PairSet.open(tmp_path / "pairs")
    assert (count, len(pairs), pairs.dtype, pairs.made["resize"]) == (4, 4, "float32", resample)
    assert json.loads((tmp_path / "pairs" / "pairs.json").read_text())["image_size"] == IMAGE_SIZE
    ((originals, recon),) = pairs.batches(9)
    with Image.open(images / "2.png") as image:
        wanted = center_crop(short_side_resize(image, IMAGE_SIZE, resample=resample), IMAGE_SIZE)
    np.testing.assert_array_equal(originals[2], np.asarray(wanted) / np.float32(255))
    with torch.inference_mode():
        output = tokenizer(torch.from_numpy(originals).permute(0, 3, 1, 2) * 2 - 1).recon
    np.testing.assert_allclose(recon, (output.clamp(-1, 1) / 2 + 0.5).permute(0, 2, 3, 1), atol=1e-4)


def test_a_size_that_is_not_whole_tokens_is_refused(images: Path, tmp_path: Path) -> None:
    tokenizer = build_tokenizer(config().tokenizer)
    with pytest.raises(UserError, match="px do not divide into tokens of"):
        write_pairs(tokenizer, str(images), tmp_path / "pairs", IMAGE_SIZE + 1, made={})
