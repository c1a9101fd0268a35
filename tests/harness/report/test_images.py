from __future__ import annotations

import base64
import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from harness.report.images import Picture, grid, single

Pictures = Callable[..., np.ndarray]


def decode(picture: Picture) -> np.ndarray:
    prefix = "data:image/png;base64,"
    assert picture.data_uri.startswith(prefix)
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(picture.data_uri[len(prefix) :]))))


def test_a_picture_of_ordinary_size_keeps_every_pixel(pictures: Pictures) -> None:
    image = pictures(1, size=140)[0]
    shown = decode(single(image))
    assert (shown[..., :3] == image).all()
    assert (shown[..., 3] == 255).all()


def test_a_small_picture_is_enlarged_whole(pictures: Pictures) -> None:
    image = pictures(1, size=32)[0]
    picture = single(image)
    assert (decode(picture)[::4, ::4, :3] == image).all()
    assert (picture.shown_px, picture.native_px, picture.scale_note) == (128, 32, "")


def test_a_large_picture_is_reduced_and_says_so(pictures: Pictures) -> None:
    picture = grid([pictures(2, size=256)])
    assert picture.shown_px == 160
    assert picture.scale_note == "Shown at 160 of 256 pixels."


def test_rows_of_different_lengths_end_in_transparency(pictures: Pictures) -> None:
    shown = decode(grid([pictures(3, size=128), pictures(1, size=128)]))
    gap = 5
    assert shown.shape == (2 * 128 + gap, 3 * 128 + 2 * gap, 4)
    assert (shown[-128:, 128:, 3] == 0).all()
    assert (shown[:128, 128 : 128 + gap, 3] == 0).all()
    assert (shown[-128:, :128, 3] == 255).all()


def test_an_empty_row_among_full_ones_keeps_its_place(pictures: Pictures) -> None:
    assert decode(grid([pictures(1, size=128), pictures(0, size=128)])).shape[0] == 2 * 128 + 5


def test_wrong_pictures_are_refused(pictures: Pictures) -> None:
    with pytest.raises(ValueError, match="uint8"):
        grid([pictures(1).astype(np.float32)])
    with pytest.raises(ValueError, match="one size"):
        grid([pictures(1, size=16), pictures(1, size=32)])
