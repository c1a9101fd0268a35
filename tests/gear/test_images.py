"""The four lines of the README, and reading and writing single images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

import gear
from harness.contract.errors import UserError
from tests.gear.small_models import TOKENIZERS, weights


def test_the_four_lines_of_the_readme(tmp_path):
    torch.save({"model": weights(TOKENIZERS["vq"], 1)}, tmp_path / "vq.pt")
    Image.fromarray(np.full((40, 30, 3), 200, np.uint8)).save(tmp_path / "cat.png")

    tokenizer = gear.load_tokenizer(tmp_path / "vq.pt")
    code = tokenizer.encode(gear.load_image(tmp_path / "cat.png", 16))
    gear.save_image(tokenizer.decode(code.quant), tmp_path / "cat-again.png")

    assert code.code_ids.shape == (64,)
    assert Image.open(tmp_path / "cat-again.png").size == (16, 16)


def test_an_image_comes_back_as_it_was(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / "in.png")
    pixels = gear.load_image(tmp_path / "in.png", 16)
    assert pixels.shape == (1, 3, 16, 16) and pixels.min() >= -1 and pixels.max() <= 1
    gear.save_image(pixels, tmp_path / "out.png")
    again = np.asarray(Image.open(tmp_path / "out.png")).astype(int)
    assert np.abs(again - image).max() <= 1  # the published conversion adds 128, not 127.5


def test_a_file_that_is_not_an_image_is_named(tmp_path):
    (tmp_path / "torn.png").write_bytes(b"torn")
    for name in ("torn.png", "absent.png"):
        with pytest.raises(UserError, match=rf"{name} cannot be read as an image"):
            gear.load_image(tmp_path / name, 16)
    with pytest.raises(ValueError, match="takes one image"):
        gear.save_image(torch.zeros(2, 3, 4, 4), tmp_path / "two.png")
