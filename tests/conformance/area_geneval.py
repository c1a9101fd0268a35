"""GenEval: verdicts on made-up detections, colour crops, the colour classifier, and the summary's printed text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.geneval.colors import color_classifier, color_prompts, crop_object, nearest_colors
from benchmarks.geneval.interface import Options
from benchmarks.geneval.verdict import Verdict, judge
from harness.contract.files import read_json_lines
from harness.scoring.verdicts import printed, summarise
from tests.conformance.case import Result, Unsupported, check, check_equal, load_arrays, load_json

AREA = "geneval"
VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "bgoriginal": {"background": "original"},
    "nocrop": {"crop": False},
    "nomask": {},
    "bgblack": {"background": "#000"},
}

Case = dict[str, Any]


def run(path: Path) -> list[Result] | None:
    meta = load_json(path)
    if "input" in meta and "expected" in meta:
        return list(check_summary(meta, path.parent))
    results: list[Result] = []
    if "evaluate_cases" in meta:
        results += check_verdicts(path.parent / "evaluate_cases.jsonl")
    if "image_crops" in meta:
        results += check_crops(load_arrays(path.parent / meta["image_crops"]["file"]))
    if "color_classifier" in meta:
        results += check_colors(meta["color_classifier"], path.parent)
    if not results:
        raise Unsupported("a kind of case this checker does not know")
    return results


# --- verdicts --------------------------------------------------------------------------------------------------------


def check_verdicts(path: Path) -> Iterator[Result]:
    for _, case in read_json_lines(path):
        verdict = judge_case(case)
        yield check_equal(f"{case['case']} correct", verdict.correct, case["expected"]["correct"])
        yield check_reason(case, "\n".join(verdict.reasons))
        yield check_details(case, verdict)


def judge_case(case: Case) -> Verdict:
    options = Options.read(our_options(case["options"]), "geneval")
    boxes = {
        name: np.array([[*found["box"], found["score"]] for found in group], np.float32).reshape(-1, 5)
        for name, group in case["detections"].items()
    }

    def classify(name: str, rows: Sequence[int]) -> list[str]:
        return [case["detections"][name][row]["color"] for row in rows]

    return judge(case["metadata"], boxes, classify, options)


def our_options(theirs: Case) -> dict[str, Any]:
    """The original's options by our names. Which networks it loads is no matter of the decision."""
    ours = {"bgcolor": "background"}
    options = {ours.get(name, name): value for name, value in theirs.items() if name not in ("model", "clip_model")}
    return options | ({"crop": bool(int(options["crop"]))} if "crop" in options else {})


def check_reason(case: Case, got: str) -> Result:
    wanted = case["expected"]["reason"]
    if case["relation_word_order_unspecified"]:
        got, wanted = in_one_order(got), in_one_order(wanted)
    detail = "" if got == wanted else f"{got!r}, expected {wanted!r}"
    return Result(f"{case['case']} reason", float(got != wanted), 0.0, got == wanted, detail)


def in_one_order(reason: str) -> str:
    """Relation words between "found" and "target" in alphabetical order."""
    return re.sub(
        r"(?<=found )(.*)(?= target)", lambda words: " and ".join(sorted(words.group().split(" and "))), reason
    )


def check_details(case: Case, verdict: Verdict) -> Result:
    wanted = case["expected"]["details"]
    return Result(f"{case['case']} details", float(verdict.details != wanted), 0.0, verdict.details == wanted)


# --- colours ---------------------------------------------------------------------------------------------------------


def check_crops(arrays: dict[str, np.ndarray]) -> Iterator[Result]:
    held = {name.split("_")[1] for name in arrays if name.startswith("crop_")}
    if unknown := held - VARIANTS.keys():
        raise Unsupported(f"crops of an unknown kind: {', '.join(sorted(unknown))}")
    for variant in sorted(held):
        changes = VARIANTS[variant]
        for row, box in enumerate(arrays["boxes"]):
            mask = None if variant == "nomask" else arrays["masks"][row]
            crop = crop_object(arrays["image"], box, mask, **changes)
            name = f"crop_{variant}_{row}"
            yield check_equal(name, np.asarray(crop), arrays[name])


def check_colors(meta: dict[str, Any], folder: Path) -> Iterator[Result]:
    arrays = load_arrays(folder / meta["file"])
    name = re.sub(r"^a photo of a \w+ ", "", meta["texts"][0])
    yield check_equal("prompts", np.array(color_prompts(name)), np.array(meta["texts"]))
    classifier = color_classifier(arrays["text_embeddings"])
    rtol = float(meta["tolerance"].split()[0])
    yield check("classifier", classifier, arrays["classifier"], rtol=rtol, atol=0.0)
    predicted = nearest_colors(arrays["image_embeddings"], classifier)
    yield check_equal("predicted", np.array(predicted), np.array(meta["predicted"]))


# --- summary ---------------------------------------------------------------------------------------------------------


def check_summary(meta: dict[str, Any], folder: Path) -> Iterator[Result]:
    rows = (row for _, row in read_json_lines(folder / meta["input"]))
    summary, expected = summarise(rows), meta["expected"]
    yield check_equal("total_images", summary.images, expected["total_images"])
    yield check_equal("total_prompts", summary.prompts, expected["total_prompts"])
    yield check("correct_images", summary.correct_images / summary.images, expected["correct_images"], atol=1e-12)
    yield check("correct_prompts", summary.correct_prompts / summary.prompts, expected["correct_prompts"], atol=1e-12)
    yield check("overall", summary.overall, expected["overall"], atol=1e-12)
    for tag, task in expected["tasks"].items():
        got = summary.tasks[tag]
        yield check(f"{tag} score", got.score, task["score"], atol=1e-12)
        yield check_equal(f"{tag} counts", [got.correct, got.images], [task["correct"], task["images"]])
    text = printed(summary)
    yield Result("printed text", float(text != meta["expected_stdout"]), 0.0, text == meta["expected_stdout"])
