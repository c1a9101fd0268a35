"""The exact resizes and crops: sizes, offsets, and that a crop is a piece of the image."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from gear.data.transforms import adm_center_crop, center_crop, random_crop, short_side_resize, to_array


def ramp(width: int, height: int) -> Image.Image:
    """Red counts columns, green counts rows."""
    columns, rows = np.meshgrid(np.arange(width), np.arange(height))
    return Image.fromarray(np.stack([columns, rows, 0 * rows], axis=2).astype(np.uint8))


@pytest.mark.parametrize(
    ("size", "wanted"), [((100, 51), (62, 32)), ((51, 100), (32, 62)), ((64, 64), (32, 32)), ((32, 40), (32, 40))]
)
def test_the_long_side_is_rounded_down(size, wanted):
    assert short_side_resize(ramp(*size), 32).size == wanted


def test_the_two_filters_differ():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8))
    bicubic, bilinear = (short_side_resize(image, 32, resample=resample) for resample in ("bicubic", "bilinear"))
    assert not np.array_equal(to_array(bicubic), to_array(bilinear))


@pytest.mark.parametrize(("width", "left"), [(33, 0), (34, 1), (35, 2), (36, 2), (37, 2), (39, 4)])
def test_an_odd_margin_is_halved_with_ties_to_even(width, left):
    assert to_array(center_crop(ramp(width, 32), 32))[0, 0, 0] == left


def test_random_crops_reach_every_place_and_follow_the_generator():
    image = ramp(34, 33)
    corners = {tuple(to_array(random_crop(image, 32, np.random.default_rng(seed)))[:2, 0, 0]) for seed in range(64)}
    assert corners == {(left, top) for left in range(3) for top in range(2)}
    first, again = (to_array(random_crop(image, 32, np.random.default_rng(7))) for _ in range(2))
    assert np.array_equal(first, again)


def test_the_adm_crop_gives_the_size_asked_for_from_any_shape():
    for size in ((300, 200), (64, 64), (65, 1000), (20, 30)):
        assert adm_center_crop(ramp(*size), 32).size == (32, 32)


def test_arrays_are_channel_first_rgb():
    grey = Image.new("L", (4, 3), 7)
    assert to_array(grey).shape == (3, 3, 4)
    assert to_array(ramp(4, 3))[0].tolist() == [[0, 1, 2, 3]] * 3


@pytest.mark.parametrize("crop", [center_crop, lambda image, size: random_crop(image, size, np.random.default_rng(0))])
def test_a_crop_larger_than_the_image_is_refused(crop):
    with pytest.raises(ValueError, match="a 31 x 40 image has no 32 x 32 crop"):
        crop(ramp(31, 40), 32)
