"""What the judge is told, by whom, and which settings are refused before it is asked anything."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.wise.interface import Options
from benchmarks.wise.wording import VERIFIED_SYSTEM, VERIFIED_USER, fill_in, texts
from harness.contract.errors import UserError


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("judge", 4),
        ("judge", None),
        ("judge", ""),
        ("judge_revision", 1234567),
        ("system_prompt", ""),
        ("system_prompt", " \n"),
        ("system_prompt", ["You", "judge"]),
        ("user_prompt", 1.5),
        ("user_prompt", "{prompt} only"),
        ("temperature", -1),
        ("temperature", float("nan")),
        ("temperature", True),
        ("disable_thinking", "no"),
        ("attempts", 0),
    ],
)
def test_a_setting_that_cannot_be_meant_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(UserError, match=name):
        Options.read({name: value}, "wise")


def test_the_users_wording_takes_the_place_of_ours() -> None:
    assert texts("wise", Options()) == (VERIFIED_SYSTEM, VERIFIED_USER)
    user = "line 1: {prompt}\n\tline 2: {explanation}"
    assert texts("wise", Options.read({"user_prompt": user}, "wise")) == (VERIFIED_SYSTEM, user)
    assert texts("wise", Options.read({"system_prompt": "Judge."}, "wise")) == ("Judge.", VERIFIED_USER)


def test_every_place_is_filled_and_what_is_filled_in_stays_as_it_is() -> None:
    user = "{explanation} {prompt} {other} {prompt} {explanation}"
    assert fill_in(user, "<{explanation}>", "[{prompt}]") == (
        "[{prompt}] <{explanation}> {other} <{explanation}> [{prompt}]"
    )
