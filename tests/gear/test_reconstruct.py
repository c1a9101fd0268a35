"""`gear reconstruct`: reconstructions, metrics and a sheet, for every layout that `gear.weights` loads."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from gear.cli import main
from gear.reconstruct import open_images, reconstruct
from gear.tokenizers import build_tokenizer
from harness.contract.errors import UserError
from harness.metrics.image import psnr
from tests.gear.small_models import TOKENIZERS, weights


@pytest.fixture
def photos(tmp_path) -> Path:
    """Three images of different sizes, two of whose names differ only in the suffix."""
    rng = np.random.default_rng(0)
    for name, size in (("a.png", (40, 30)), ("a.jpg", (16, 50)), ("below/b.png", (16, 16))):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)
    (tmp_path / "photos" / "notes.txt").write_text("no image")
    return tmp_path / "photos"


def test_every_image_is_written_under_a_name_of_its_own(photos, tmp_path):
    metrics = reconstruct(build_tokenizer(TOKENIZERS["vq"]).eval(), str(photos), tmp_path / "out", 16)
    written = sorted(path.name for path in (tmp_path / "out" / "reconstructions").iterdir())
    assert written == ["a.jpg.png", "a.png.png", "below__b.png"]
    assert metrics["images"] == 3 and 1 <= metrics["codes_used"] <= metrics["codes"] == 64
    assert json.loads((tmp_path / "out" / "metrics.json").read_text()) == metrics
    with np.load(tmp_path / "out" / "pairs.npz", allow_pickle=False) as pairs:
        assert pairs["originals"].shape == pairs["reconstructions"].shape == (3, 16, 16, 3)
    assert Image.open(tmp_path / "out" / "sheet.png").size == (4 * (32 + 8), 16 + 4)


def test_the_metrics_are_those_of_the_unrounded_pixels(photos, tmp_path):
    tokenizer = build_tokenizer(TOKENIZERS["vq"]).eval()
    image = photos / "below" / "b.png"
    metrics = reconstruct(tokenizer, str(image), tmp_path / "out", 16)
    original = np.asarray(Image.open(image))
    with torch.inference_mode():
        recon = tokenizer(torch.from_numpy(original.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1.0).recon
    expected = psnr(original.transpose(2, 0, 1)[None] / 255.0, (recon.clamp(-1, 1).double().numpy() + 1) / 2)
    assert metrics["psnr"] == pytest.approx(expected.item(), abs=1e-4)


@pytest.mark.parametrize("wrapper", ["vq", "model", "state_dict"])
def test_the_command_takes_foreign_files(wrapper, photos, tmp_path):
    torch.save({wrapper: weights(TOKENIZERS["lfq"], 1)}, tmp_path / "t.ckpt")
    arguments = ["reconstruct", photos, "--tokenizer", tmp_path / "t.ckpt", "--out", tmp_path / "o", "--image-size", 8]
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["images"] == 3


def test_a_size_that_does_not_divide_into_tokens_is_refused(photos, tmp_path):
    with pytest.raises(UserError, match="7 px do not divide into tokens of 2 px; use a multiple with --image-size"):
        reconstruct(build_tokenizer(TOKENIZERS["vq"]), str(photos), tmp_path / "out", 7)


def test_a_file_that_is_no_image_is_named(photos, tmp_path):
    (photos / "torn.png").write_bytes(b"\x89PNG torn")
    with pytest.raises(UserError, match=r"torn\.png cannot be read as an image .* remove or replace it"):
        reconstruct(build_tokenizer(TOKENIZERS["vq"]).eval(), str(photos), tmp_path / "out", 16)


def test_a_folder_without_images_is_refused(tmp_path):
    with pytest.raises(UserError, match="holds no images"):
        reconstruct(build_tokenizer(TOKENIZERS["vq"]), str(tmp_path), tmp_path / "out", 16)


def test_links_are_followed_and_hidden_names_left_out(photos, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    Image.new("RGB", (16, 16)).save(tmp_path / "elsewhere" / "c.bmp")
    (photos / "linked").symlink_to(tmp_path / "elsewhere")
    (photos / "below" / "again").symlink_to("..")
    (photos / "._a.png").write_bytes(b"resource fork")
    assert open_images(str(photos), 16, 0).names == ["a.jpg", "a.png", "below__b", "linked__c"]


def test_an_image_of_another_kind_is_refused_by_name_and_number(photos):
    Image.new("RGB", (16, 16)).save(photos / "moving.gif")
    with pytest.raises(UserError, match=r"holds 1 image of another kind \(the first is moving\.gif\)"):
        open_images(str(photos), 16, 0)
