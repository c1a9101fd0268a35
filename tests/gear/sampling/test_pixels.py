"""The conversion to stored pixels."""

from __future__ import annotations

import pytest
import torch

from gear.sampling.pixels import resize, to_u8, to_u8_rounded


@pytest.mark.parametrize(
    ("value", "truncated", "rounded"),
    [(-1.0, 0, 0), (-2.0, 0, 0), (0.0, 128, 128), (1.0, 255, 255), (9.0, 255, 255), (0.003, 128, 128), (-0.9, 13, 13)],
)
def test_levels_are_clamped_then_truncated_or_rounded(value, truncated, rounded):
    pixels = torch.full((1, 3, 1, 1), value)
    assert to_u8(pixels).unique().tolist() == [truncated]
    assert to_u8_rounded(pixels).unique().tolist() == [rounded]


def test_channels_go_last():
    pixels = torch.zeros(2, 3, 4, 5)
    pixels[:, 1] = 1.0
    images_u8 = to_u8(pixels)
    assert images_u8.shape == (2, 4, 5, 3)
    assert images_u8[0, 0, 0].tolist() == [128, 255, 128]


def test_an_image_of_the_right_size_is_unchanged():
    pixels = torch.randn(1, 3, 8, 8)
    assert resize(pixels, 8) is pixels
    assert resize(pixels, 4).shape == (1, 3, 4, 4)
