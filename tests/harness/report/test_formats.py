from __future__ import annotations

import math

import pytest

from harness.contract.progress import format_seconds
from harness.report.formats import (
    format_count,
    format_interval,
    format_together,
    format_value,
    in_words,
    plural,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3.9425, "3.94"),
        (241.34, "241.3"),
        (0.8265, "0.827"),
        (0.0, "0.000"),
        (-0.5, "−0.500"),
        (123456789.0, "1.23e+08"),
        (0.00001234, "1.23e-05"),
        (math.nan, "not a number"),
        (math.inf, "∞"),
        (-math.inf, "−∞"),
    ],
)
def test_a_number_keeps_the_digits_a_reader_needs(value: float, text: str) -> None:
    assert format_value(value) == text


def test_numbers_side_by_side_share_their_decimals() -> None:
    assert format_together([3.9, 215.84]) == ["3.9", "215.8"]


def test_unequal_numbers_never_look_equal() -> None:
    assert format_together([0.70041, 0.70044]) == ["0.70041", "0.70044"]


def test_equal_numbers_do_not_grow_decimals() -> None:
    assert format_together([2.0, 2.0]) == ["2.00", "2.00"]


def test_a_nan_among_numbers_is_spelt_out() -> None:
    assert format_together([1.0, math.nan]) == ["1.000", "not a number"]


def test_an_interval_has_the_decimals_of_its_value() -> None:
    assert format_interval((3.8, 4.0235), like="3.94") == "[3.80, 4.02]"


def test_an_interval_narrower_than_a_digit_of_its_value_shows_its_width() -> None:
    assert format_interval((3.9401, 3.9409), like="3.94") == "[3.940, 3.941]"


def test_a_missing_interval_is_empty() -> None:
    assert format_interval(None) == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0.00 s"),
        (0.417, "0.42 s"),
        (9.996, "10.0 s"),
        (59.96, "1 min 00 s"),
        (200.4, "3 min 20 s"),
        (3599.7, "1 h 00 min"),
        (7500.0, "2 h 05 min"),
        (None, ""),
        (math.nan, ""),
    ],
)
def test_durations_read_like_durations(seconds: float | None, text: str) -> None:
    assert format_seconds(seconds) == text


def test_counts_have_separators_and_may_be_missing() -> None:
    assert (format_count(50_000), format_count(None)) == ("50,000", "")


def test_lists_and_plurals_are_english() -> None:
    assert in_words([]) == ""
    assert in_words(["a"]) == "a"
    assert in_words(["a", "b", "c"]) == "a, b and c"
    assert (plural(1, "metric"), plural(2, "entry", "entries")) == ("1 metric", "2 entries")
