from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from gear.data.base import BadSample
from gear.data.images import open_rgb, training_image
from tests.gear.data import make


def test_any_mode_becomes_rgb() -> None:
    for mode in ("L", "RGBA", "CMYK", "P", "1"):
        image = Image.new(mode, (5, 4))
        stream = make.io.BytesIO()
        image.save(stream, "tiff")
        assert open_rgb(stream.getvalue(), drop_alpha=True).mode == "RGB"


def test_truncated_images_are_refused_unless_they_are_accepted(tmp_path: Path) -> None:
    half = make.jpeg(size=(64, 64))[:2000]
    with pytest.raises(BadSample, match="cannot be read as an image"):
        open_rgb(half)
    assert open_rgb(half, accept_truncated=True).size == (64, 64)
    assert not ImageFile.LOAD_TRUNCATED_IMAGES, "left as it was"
    with pytest.raises(BadSample):
        open_rgb(tmp_path / "absent.png")


def test_an_image_of_the_training_size_is_unchanged() -> None:
    image = open_rgb(make.encoded(0, (16, 16), "png"))
    pixels = training_image(image, 16, np.random.default_rng(0), crop="random", random_hflip=False)
    assert np.array_equal(pixels, np.asarray(image).transpose(2, 0, 1))


def test_crop_and_mirror_come_from_the_generator_in_this_order() -> None:
    image = open_rgb(make.encoded(0, (40, 20), "png"))
    rng = np.random.default_rng(3)
    pixels = training_image(image, 20, np.random.default_rng(3), crop="random", random_hflip=True)
    _, left = rng.integers(1), int(rng.integers(21))
    crop = np.asarray(image)[:, left : left + 20]
    expected = crop[:, ::-1] if rng.random() < 0.5 else crop
    assert np.array_equal(pixels, expected.transpose(2, 0, 1))
