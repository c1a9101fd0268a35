"""The digit classifier of the demo, on real digits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from harness.scoring.digit_classifier import DigitClassifier, ink_maps

SHIPPED = Path(__file__).parents[3] / "benchmarks" / "demo" / "check" / "assets" / "demo-digits"


def shipped(split: str) -> tuple[np.ndarray, np.ndarray]:
    """120 training digits or 40 held-out ones: images (N, 32, 32, 3) uint8 and labels (N,)."""
    with np.load(SHIPPED / f"{split}.npz") as archive:
        return archive["images_u8"], archive["labels"]


def test_a_hundred_digits_teach_it_most_of_what_there_is_to_know() -> None:
    images_u8, labels = shipped("held_out")
    right = DigitClassifier(*shipped("train")).predict(images_u8) == labels
    assert right.mean() > 0.75


@pytest.mark.slow
def test_on_all_digits_it_is_right_in_96_of_100() -> None:
    from gear.data.digits import load_digits

    train, held_out = load_digits("train"), load_digits("held_out")
    right = DigitClassifier(train.images_u8, train.labels).predict(held_out.images_u8) == held_out.labels
    assert right.mean() > 0.96


def test_the_colour_of_the_ink_does_not_matter() -> None:
    red, blue = np.array([214, 39, 40]), np.array([31, 80, 220])
    ink = np.random.default_rng(0).random((3, 8, 8, 1))
    maps = [ink_maps(np.rint(255 - ink * (255 - colour)).astype(np.uint8)) for colour in (red, blue)]
    np.testing.assert_allclose(maps[0], maps[1], atol=0.01)


def test_an_empty_page_is_no_division_by_zero() -> None:
    page = np.full((2, 32, 32, 3), 255, np.uint8)
    assert np.isfinite(ink_maps(page)).all()
    assert DigitClassifier(*shipped("train")).predict(page).shape == (2,)


def test_the_fit_is_not_left_to_chance() -> None:
    images_u8, _ = shipped("held_out")
    first, second = (DigitClassifier(*shipped("train")).predict(images_u8) for _ in range(2))
    np.testing.assert_array_equal(first, second)
