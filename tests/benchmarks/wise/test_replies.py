"""What is read as a score of the older protocol, and what is not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.wise.metrics import metrics
from benchmarks.wise.protocols import LEGACY, VERIFIED
from benchmarks.wise.replies import parse_legacy_scores
from tests.conformance.area_wise import check_replies


@pytest.mark.parametrize(
    ("line", "score"),
    [
        ("Consistency: 2", 2),
        ("**Consistency: 2**", 2),
        ("**Consistency:** 2", 2),
        ("**Consistency**: 2", 2),
        ("- consistency : 2.", 2),
        ("Consistency (0-2): 2", 2),
        ("**Consistency** (0 to 2): 2/2", 2),
        ("Inconsistency: 0. Consistency: 2", 2),
        ('{"Consistency": 2,', 2),
        ("Consistency: [2]", 2),
        ("Consistency：2", 2),
        ("Consistency = 2", 2),
        ("`Consistency`: 2", 2),
        ("__Consistency__: __2__", 2),
        ("Consistency: -1", None),
        ("Consistency: 1.5", None),
        ("Consistency: 0-2", None),
        ("Consistency: 12", None),
        ("Consistency: 3", None),
        ("Inconsistency: 0", None),
    ],
)
def test_a_score_of_the_older_protocol_stands_after_its_name(line: str, score: int | None) -> None:
    found = parse_legacy_scores(f"{line}\nRealism: 1\nAesthetic Quality: 0")
    wanted = None if score is None else {"consistency": score, "realism": 1, "aesthetic quality": 0}
    assert found == wanted


@pytest.mark.parametrize(
    ("protocol", "scores", "is_share"),
    [(VERIFIED, (0, 1), True), (LEGACY, (1.0, 0.0), True), (LEGACY, (0.5, 0.5), False)],
)
def test_only_a_share_has_an_interval(protocol, scores: tuple[float, ...], is_share: bool) -> None:
    rows = [{"prompt_id": i, "score": score, "round": 0} for i, score in enumerate(scores, start=1)]
    (culture,) = [metric for metric in metrics(protocol, rows, 1) if metric.category == "CULTURE"]
    assert (culture.interval is not None) == is_share


def test_a_line_of_a_golden_case_may_hold_any_separator_of_unicode(tmp_path: Path) -> None:
    case = {"case": "a", "response": "\u2028Score: 1\x85", "expected": {"cleaned": "Score: 1", "score": 1}}
    (tmp_path / "replies.jsonl").write_text(json.dumps(case, ensure_ascii=False) + "\n", encoding="utf-8")
    assert all(result.passed for result in check_replies(tmp_path / "replies.jsonl"))
