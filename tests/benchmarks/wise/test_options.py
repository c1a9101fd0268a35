"""What the judge is told, by whom, and which settings are refused before it is asked anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.wise.interface import Options
from benchmarks.wise.wording import VERIFIED_SYSTEM, VERIFIED_USER, Wording, wording_of
from harness.contract.errors import UserError
from harness.scoring.scorer import Assets


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
        ("wording", "theirs"),
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


def test_the_users_wording_takes_the_place_of_ours(tmp_path: Path) -> None:
    def own(**given: str) -> tuple[str, str]:
        wording = wording_of("wise", Options.read({"wording": "own", **given}, "wise"), Assets(tmp_path))
        return wording.system, wording.template

    assert own() == (VERIFIED_SYSTEM, VERIFIED_USER)
    user = "line 1: {prompt}\n\tline 2: {explanation}"
    assert own(user_prompt=user) == (VERIFIED_SYSTEM, user)
    assert own(system_prompt="Judge.") == ("Judge.", VERIFIED_USER)


def test_the_published_wording_of_the_older_protocol_is_not_known(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--set wise_legacy\.wording=published: .*use wording=own"):
        wording_of("wise_legacy", Options(), Assets(tmp_path))


def test_every_place_is_filled_and_what_is_filled_in_stays_as_it_is() -> None:
    wording = Wording.of("", "{explanation} {prompt} {other} {prompt} {explanation}")
    assert wording.fill_in("<{explanation}>", "[{prompt}]") == (
        "[{prompt}] <{explanation}> {other} <{explanation}> [{prompt}]"
    )
