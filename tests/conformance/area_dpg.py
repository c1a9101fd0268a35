"""DPG-Bench: answers in, tile scores, categories and the final score out, with the original's quirks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.dpg.questions import Item, read_questions
from benchmarks.dpg.scores import ImageScore, MissingParent, category_scores, dpg_score, score_image, tile_score
from harness.contract.grid import tile_boxes
from tests.conformance.case import Result, check, check_equal, load_json

AREA = "dpg"

Case = dict[str, Any]


def run(path: Path) -> list[Result] | None:
    case = load_json(path)
    if not {"questions", "answers", "expected"} <= set(case):
        return None
    items = read_questions(path.parent / case["questions"])
    images, failed, detail_rows = score_case(case, items)
    results = list(check_images(images, case["expected"]))
    results.append(check_names("failed_images", failed, case["failed_images"]))
    results.append(check_equal("detail_rows", detail_rows, case["expected"]["detail_rows"]))
    boxes = tile_boxes(case["resolution"], 2, case["pic_num"])
    wanted = [crop["box"] for crop in sorted(case["crops"], key=lambda crop: crop["tile"])]
    results.append(check_equal("tile boxes", np.array(boxes), np.array(wanted)))
    return [*results, *check_totals(items, images, case)]


def score_case(case: Case, items: dict[str, Item]) -> tuple[list[ImageScore], list[str], int]:
    """(scored images, images left out, lines of the detail file: a tile's come before its dependencies)."""
    images, failed, detail_rows = [], [], 0
    for key in case["image_names"]:
        if key not in items:
            failed.append(key)
            continue
        item = items[key]
        answers = [[tile[question.text] for question in item.questions] for tile in case["answers"][key]]
        try:
            for tile in answers:
                detail_rows += len(item.questions)
                tile_score(item, tile)
        except MissingParent:
            failed.append(key)
        else:
            images.append(score_image(key, item, answers))
    return images, failed, detail_rows


def check_images(images: list[ImageScore], expected: Case) -> Iterator[Result]:
    by_key = {image.key: image for image in images}
    yield check_names("scored images", list(by_key), list(expected["per_image"]))
    for key, wanted in expected["per_image"].items():
        if key in by_key:
            yield check(f"{key} tiles", by_key[key].tiles, wanted["tiles"], rtol=1e-9, atol=0.0)
            yield check(f"{key} mean", by_key[key].mean, wanted["mean"], rtol=1e-9, atol=0.0)
            raw = {str(number): value for number, value in by_key[key].last_tile_raw.items()}
            yield Result(f"{key} last tile", 0.0, 0.0, raw == expected["last_tile_raw"][key])


def check_totals(items: dict[str, Item], images: list[ImageScore], case: Case) -> Iterator[Result]:
    expected, rtol = case["expected"], float(case["tolerance"].split()[0])
    yield check("dpg_bench_score", dpg_score(images), expected["dpg_bench_score"], rtol=rtol, atol=0.0)
    for level in ("l1", "l2"):
        found = category_scores(items, images, broad=level == "l1")
        yield check_names(level, sorted(found), sorted(expected[level]))
        for name in expected[level].keys() & found.keys():
            yield check(f"{level} {name}", found[name].score, expected[level][name], rtol=rtol, atol=0.0)


def check_names(name: str, got: list[str], wanted: list[str]) -> Result:
    different = sorted(set(got) ^ set(wanted))
    return Result(name, float(len(different)), 0.0, not different, ", ".join(different[:3]))
