"""Colours by hue, and verdicts in GenEval's words."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.demo_t2i.verdict import colours_of, hue_distance, judge
from gear.data.digits import COLOURS, load_digits

PROMPT = {"tag": "seen pairs", "include": [{"class": "seven", "count": 1, "color": "red"}], "prompt": "a red seven"}


def test_the_colour_of_nearly_every_real_digit_is_told_by_its_hue() -> None:
    digits = load_digits("held_out")
    names = list(COLOURS)
    found = colours_of(digits.images_u8, COLOURS)
    assert np.mean([name == names[colour] for name, colour in zip(found, digits.colour_ids, strict=True)]) > 0.99


@pytest.mark.parametrize("strength", [0.5, 0.8, 1.0])
def test_the_strength_of_the_ink_does_not_change_its_colour(strength: float) -> None:
    for name, colour in COLOURS.items():
        image = np.full((8, 8, 3), 255.0)
        image[2:6, 2:6] = 255.0 - strength * (255.0 - np.array(colour))
        assert colours_of(np.rint(image).astype(np.uint8)[None], COLOURS) == [name]


def test_blank_paper_and_grey_ink_have_no_colour() -> None:
    blank = np.full((1, 8, 8, 3), 255, np.uint8)
    grey = blank.copy()
    grey[:, 2:6, 2:6] = 90
    assert colours_of(np.concatenate([blank, grey]), COLOURS) == [None, None]


def test_hues_go_around_the_circle() -> None:
    assert hue_distance(0.99, 0.01) == pytest.approx(0.02)
    assert hue_distance(0.25, 0.75) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("digit", "colour", "right", "reasons"),
    [
        ("seven", "red", (True, True), []),
        ("one", "red", (False, True), ["expected seven>=1, found one"]),
        ("seven", "pink", (True, False), ["expected red seven>=1, found pink"]),
        ("one", "pink", (False, False), ["expected seven>=1, found one", "expected red seven>=1, found pink"]),
        ("seven", None, (False, False), ["expected seven>=1, found 0"]),
    ],
)
def test_a_picture_is_right_when_digit_and_colour_are(
    digit: str, colour: str | None, right: tuple[bool, bool], reasons: list[str]
) -> None:
    verdict, found = judge(PROMPT, digit, colour)
    assert (verdict.digit_right, verdict.colour_right) == right
    assert verdict.correct == all(right)
    assert found == reasons
