"""The decision about one image, at its thresholds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.geneval.colors import COLORS
from benchmarks.geneval.interface import Options
from benchmarks.geneval.notes import FULL_COUNT, metrics, notes
from benchmarks.geneval.verdict import Verdict, intersection_over_union, judge, relations, select
from harness.contract.errors import UserError
from harness.scoring.verdicts import summarise
from tests.conformance import area_geneval

BOX = (10, 10, 20, 20)


def boxes(*scores: float, box: Sequence[float] = BOX) -> np.ndarray:
    return np.array([[*box, score] for score in scores], np.float32).reshape(-1, 5)


def verdict(clauses: list[dict[str, Any]], found: dict[str, np.ndarray], tag: str = "", **more: Any) -> Verdict:
    colors = more.pop("colors", [])
    return judge(
        {"tag": tag, "include": clauses, **more}, found, lambda name, rows: [colors[r] for r in rows], Options()
    )


def test_a_score_of_exactly_the_threshold_does_not_count_although_it_is_larger_in_double_precision() -> None:
    assert float(np.float32(0.3)) > 0.3
    assert len(select(boxes(0.3), 0.3, Options())) == 0
    assert len(select(boxes(np.nextafter(np.float32(0.3), np.float32(1))), 0.3, Options())) == 1


def test_counting_wants_surer_detections_and_no_more_than_asked_for() -> None:
    clauses, exclude = [{"class": "cow", "count": 2}], [{"class": "cow", "count": 3}]
    assert verdict(clauses, {"cow": boxes(0.95, 0.96, 0.5)}, "counting", exclude=exclude).correct
    assert verdict(clauses, {"cow": boxes(0.95, 0.89)}, "counting").reasons == ("expected cow>=2, found 1",)
    three = verdict(clauses, {"cow": boxes(0.95, 0.96, 0.97)}, "counting", exclude=exclude)
    assert three.reasons == ("expected cow<3, found 3",)


def test_at_most_sixteen_of_a_class_count() -> None:
    found = select(boxes(*np.linspace(0.4, 0.9, 20)), 0.3, Options())
    assert len(found) == 16 and found.boxes[0, 4] == np.float32(0.9)


def test_only_the_best_detections_are_looked_at_for_their_colour() -> None:
    clause = {"class": "cow", "count": 1, "color": "red"}
    wrong = verdict([clause], {"cow": boxes(0.5, 0.9)}, colors=["red", "blue"])
    assert wrong.reasons == ("expected red cow>=1, found 0 red; and 1 blue",)
    assert verdict([clause], {"cow": boxes(0.9, 0.5)}, colors=["red", "blue"]).correct


def test_a_clause_that_failed_is_no_target() -> None:
    clauses = [{"class": "cow", "count": 1}, {"class": "dog", "count": 1, "position": ["left of", 0]}]
    assert verdict(clauses, {"dog": boxes(0.9)}).reasons[1] == "no target for dog to be left of"


@pytest.mark.parametrize(
    ("a", "expected"),
    [
        ((0, 0, 10, 10), ("left of", "above")),
        ((200, 100, 210, 110), ("right of",)),
        ((100, 200, 110, 210), ("below",)),
        ((101, 101, 111, 111), ()),
    ],
)
def test_relations_are_those_of_the_offset_less_a_share_of_both_sizes(a: tuple[int, ...], expected: Any) -> None:
    box = lambda corners: np.array([*corners, 0.9], np.float32)  # noqa: E731
    assert relations(box(a), box((100, 100, 110, 110)), 0.1) == expected


def test_the_same_box_covers_itself_and_the_last_pixel_belongs_to_a_box() -> None:
    box = np.array([0, 0, 1, 1, 0.5], np.float32)
    assert intersection_over_union(box, box) == 1.0
    assert intersection_over_union(box, np.array([1, 1, 2, 2, 0.5], np.float32)) == pytest.approx(1 / 7)


def test_the_overall_score_weighs_tasks_and_not_images() -> None:
    rows = [{"tag": "a", "correct": True, "metadata": "1"}] + [
        {"tag": "b", "correct": False, "metadata": str(i)} for i in range(9)
    ]
    summary = summarise(rows)
    assert summary.overall == 0.5 and summary.correct_images / summary.images == 0.1
    names = [(metric.name, metric.category) for metric in metrics(summary)]
    assert names[-2:] == [("task_score", "a"), ("task_score", "b")]


def test_everything_wrong_is_a_score_of_zero_and_nothing_judged_is_none() -> None:
    assert summarise([{"tag": "a", "correct": False, "metadata": {}}]).overall == 0.0
    with pytest.raises(ValueError, match="no judged image"):
        summarise([])


@pytest.mark.parametrize("change", [{"threshold": 2}, {"max_objects": 0}, {"backend": "gpu"}, {"treshold": 0.1}])
def test_a_wrong_option_names_itself(change: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(change))):
        Options.read(change, "geneval")


def test_a_golden_case_may_have_the_originals_options() -> None:
    theirs = {"model": "m", "clip_model": "ViT-L-14", "bgcolor": "original", "crop": 0, "max_objects": 3}
    ours = Options.read(area_geneval.our_options(theirs), "geneval")
    assert (ours.background, ours.crop, ours.max_objects) == ("original", False, 3)
    assert area_geneval.our_options({}) == {}


def test_a_line_of_a_golden_case_may_hold_any_separator_of_unicode(tmp_path: Path) -> None:
    expected = {"correct": False, "reason": "expected cow>=1, found 0", "details": {}}
    case = {
        "case": "\u2028\x85",
        "metadata": {"tag": "colors", "include": [{"class": "cow", "count": 1}], "prompt": "\u2029"},
        "options": {"bgcolor": "#000"},
        "detections": {},
        "expected": expected,
        "relation_word_order_unspecified": False,
    }
    (tmp_path / "cases.jsonl").write_text(json.dumps(case, ensure_ascii=False) + "\n", encoding="utf-8")
    results = list(area_geneval.check_verdicts(tmp_path / "cases.jsonl"))
    assert len(results) == 3 and all(result.passed for result in results)


@pytest.mark.parametrize(
    ("benchmark", "prompt", "is_noted"),
    [
        ("geneval", "a photo of a cow", False),
        ("geneval", "In this serene image, a cow", True),
        ("geneval_long", "In this serene image, a cow", False),
        ("geneval_long", "a photo of a cow", True),
    ],
)
def test_prompts_of_the_other_suite_are_noted(benchmark: str, prompt: str, is_noted: bool) -> None:
    judged = [{"prompt": prompt, "details": {"cow": []}}]
    assert any("not those of" in note for note in notes(benchmark, judged, {}, FULL_COUNT)) == is_noted


def test_there_are_ten_colours() -> None:
    assert len(set(COLORS)) == 10
