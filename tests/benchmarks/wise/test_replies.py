"""What is read as a score of the older protocol, and what is not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.wise.metrics import metrics
from benchmarks.wise.protocols import LEGACY, VERIFIED
from benchmarks.wise.replies import Reply, parse_legacy_scores, read
from harness.contract.files import read_json_lines
from tests.conformance.area_wise import check_replies

ROOT = Path(__file__).parents[3]


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


@pytest.mark.parametrize(
    "reply",
    [
        "2\n1\n0",
        " 2 \n\n1\n0\n",
        "Consistency 2\nRealism 1\nAesthetic Quality 0",
        "**Consistency** 2\n- **Realism** 1/2\n| Aesthetic Quality | 0 |",
        "Consistency: 0\nRealism: 0\nAesthetic Quality: 2\nOn second thought:\n"
        "Consistency: 2\nRealism: 1\nAesthetic Quality: 0",
        "Consistency: 0-2, I give Consistency: 2\nRealism: 1\nAesthetic Quality: 0",
        "Consistency: 2\nRealism: 1\nAesthetic Quality: 0\n\nConsistency: the image shows it all.",
        '{"consistency": 2, "realism": "1", "aesthetic_quality": 0}',
        "Consistency:\n2\nRealism:\n1\nAesthetic Quality:\n0",
        "Consistency: 2.0\nRealism: 1\nAesthetic Quality: 0",
    ],
)
def test_scores_of_the_older_protocol_are_read_as_by_its_program_and_the_last_counts(reply: str) -> None:
    assert parse_legacy_scores(reply) == {"consistency": 2, "realism": 1, "aesthetic quality": 0}


@pytest.mark.parametrize(
    "reply",
    [
        "2\n1",
        "2\n1\n0\n1",
        "3\n1\n0",
        "Consistency: 2\nRealism: 1\nAesthetic Quality: 0\nNo, Consistency: 1.5",
        "For consistency 2 objects are needed.\nRealism: 1\nAesthetic Quality: 0",
        "Consistency: 0 or 1\nRealism: 1\nAesthetic Quality: 0",
        "Consistency: 7\n2\n1\n0",
    ],
)
def test_what_is_no_score_of_the_older_protocol_is_not_taken_for_one(reply: str) -> None:
    assert parse_legacy_scores(reply) is None


@pytest.mark.parametrize(
    "text",
    [
        "Score: 0.5", "Score: 0,5", "Score: 1.5", "Score: 0-1", "Score: 1/10", "Score: 1 out of 10", "Score: 0 or 1",
        "Score: 0 if it is missing, Score: 1 if not", "Score: 1%", "<think>Score: 0 if it is missing",
    ],
)  # fmt: skip
def test_the_beginning_of_something_else_is_no_score(text: str) -> None:
    assert read("wise", Reply(text)).score is None


@pytest.mark.parametrize("text", ["Score: 1.0", "Score: 1/1", "Score: 1.", "Score: 1, it is there", "Score: 1 - it is"])
def test_a_score_with_something_behind_it_is_a_score(text: str) -> None:
    assert read("wise", Reply(text)).score == 1


@pytest.mark.parametrize(
    ("benchmark", "text", "score"),
    [
        ("wise", "<think>Score: 0 if the moon", None),
        ("wise", "The moon is there. Score: 0 if it is not, and", None),
        ("wise", "Let me see.\nScore: 0\nwould be right if", None),
        ("wise", "Score: 0", None),
        ("wise", "Score: 0 if\nthe moon", None),
        ("wise", "**Score: 1**\nThe moon is", 1.0),
        ("wise", "Score: 1 because the moon is", 1.0),
        ("wise", "The score is 1, because the moon is", None),
        ("wise", "1\n\nThe moon is", 1.0),
        ("wise_legacy", "Consistency: 2\nRealism: 2\nAesthetic Quality: 2\nThe moon is", 1.0),
        ("wise_legacy", "Consistency: 2\nRealism: 2\nAesthetic Quality: 2", None),
        ("wise_legacy", "The consistency is good.\nConsistency: 2\nRealism: 2\nAesthetic Quality: 2\nThe moon", None),
    ],
)
def test_a_reply_that_was_cut_off_counts_where_it_opens_with_its_answer(benchmark, text, score) -> None:
    reading = read(benchmark, Reply(text, "length"))
    assert reading.score == (None if score is None else pytest.approx(score))
    assert score is not None or (reading.reason_class == "cut-off-reply" and "max_tokens" in reading.problem)


def test_replies_are_read_as_in_the_golden_cases_but_for_two() -> None:
    rows = [row for _, row in read_json_lines(ROOT / "tests/golden/wise/judge_responses.jsonl")]
    read_otherwise = {
        row["case"] for row in rows if read("wise", Reply(row["response"])).score != row["expected"]["score"]
    }
    assert read_otherwise == {"decimal_half", "think_unclosed"}


@pytest.mark.parametrize(
    "part",
    [
        "<think>",
        "</think>",
        "Score" + " " * 1000,
        "Consistency: [ ",
        "Consistency (",
        "Consistency: 2-",
        "*",
        " ",
        "2\n",
    ],
)
@pytest.mark.parametrize("reason", ["stop", "length"])
def test_a_reply_of_a_megabyte_is_read_in_one_pass(part: str, reason: str) -> None:
    for start in ("", "Score", "Consistency:"):
        text = start + part * (1_000_000 // len(part))
        assert read("wise", Reply(text, reason)).problem
        assert read("wise_legacy", Reply(text, reason)).problem or part == "2\n"
