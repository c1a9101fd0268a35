"""WISE: reading the judge's replies, and adding up score files with the original's rules for broken ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.wise.replies import clean, parse_score
from benchmarks.wise.score_files import ScoreFiles, read_score_files
from harness.contract.files import read_json_lines
from tests.conformance.case import Result, check, check_equal, load_json

AREA = "wise"
REPLIES = "judge_responses.jsonl"


def run(path: Path) -> list[Result] | None:
    case = load_json(path)
    if "files" in case and "expected" in case:
        return list(check_score_files(case, path.parent))
    if "judge_responses" in case and (path.parent / REPLIES).is_file():
        return list(check_replies(path.parent / REPLIES))
    return None


def check_replies(path: Path) -> Iterator[Result]:
    for _, case in read_json_lines(path):
        cleaned, expected = clean(case["response"]), case["expected"]
        yield same(f"{case['case']} cleaned", cleaned, expected["cleaned"])
        yield same(f"{case['case']} score", parse_score(cleaned), expected["score"])


def check_score_files(case: dict[str, Any], folder: Path) -> Iterator[Result]:
    found = read_score_files([folder / name for name in case["files"]], case["category"])
    expected = case["expected"]
    yield same("categories", sorted(found.scores.means), sorted(expected["categories"]))
    yield from check_means(found, expected["categories"])
    yield same("overall reported", found.overall is not None, expected["overall_reported"])
    if expected["overall_wiscore"] is not None:
        yield check("overall", found.overall, expected["overall_wiscore"], atol=1e-12)
    yield same("missing ids", bool(found.missing), expected["missing_ids_error"])
    if "warnings" in expected:
        yield check_equal("warnings", len(found.warnings), expected["warnings"])


def check_means(found: ScoreFiles, expected: dict[str, Any]) -> Iterator[Result]:
    for name in expected.keys() & found.scores.means.keys():
        yield check(f"{name} mean", found.scores.means[name], expected[name]["mean"], atol=1e-12)
        yield check_equal(f"{name} n", found.scores.categories[name].count, expected[name]["n"])


def same(name: str, got: object, wanted: object) -> Result:
    detail = "" if got == wanted else f"{got!r}, expected {wanted!r}"
    return Result(name, float(got != wanted), 0.0, got == wanted, detail)
