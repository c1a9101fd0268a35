"""What each benchmark states about its items: the values of the items give the metrics, and need nothing heavy."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.catalog.benchmarks import Catalog, read_recompute
from harness.catalog.project import find_project
from harness.contract.items import ItemSource, ItemValue
from harness.metrics.paired import Stratum, difference

ROOT = Path(__file__).parents[2]
QUESTIONS = ROOT / "benchmarks" / "dpg" / "check" / "assets" / "dpg-questions"

Rows = list[dict[str, Any]]


def verdicts() -> Rows:
    """Three tasks of different size, four images a prompt."""
    rows = []
    for prompt, (tag, hits) in enumerate([("one", 4), ("one", 1), ("two", 0), ("two", 3), ("two", 2), ("three", 4)]):
        for image in range(4):
            row = {"id": f"{prompt}/{image}", "tag": tag, "prompt": f"prompt {prompt}", "correct": image < hits}
            parts = {"digit_right": image < hits, "colour_right": image < 3}
            rows.append({**row, **parts, "metadata": {"tag": tag, "prompt": f"prompt {prompt}"}})
    return rows


def judged(scores: Sequence[float | None], rounds: int = 1) -> Rows:
    ids = [1, 2, 450, 550, 650, 800, 850, 950]  # of every category, in both protocols
    return [
        {"id": f"{ids[i]}", "prompt_id": ids[i], "round": number, "score": score}
        for number in range(rounds)
        for i, score in enumerate(scores)
    ]


def answers() -> Rows:
    from benchmarks.dpg.questions import read_questions

    items = read_questions(next(QUESTIONS.iterdir()), skip_first_row=False)
    return [
        {
            "id": f"{key}/{tile}",
            "key": key,
            "tile": tile,
            "answers": {str(q.number): "no" if (q.number + tile) % 3 == 0 else "yes" for q in item.questions},
        }
        for key, item in items.items()
        for tile in range(4)
    ]


NUMBERS = np.random.default_rng(0).uniform(0.1, 0.9, (3, 70)).tolist()
PAIRS = [
    {"id": f"{row:06d}", "row": row, "psnr": 30 * psnr, "ssim": ssim, "l1": l1}
    for row, (psnr, ssim, l1) in enumerate(zip(*NUMBERS, strict=True))
]
DIGITS = [{"id": str(row), "row": row, "label": row % 10, "predicted": row % 7} for row in range(40)]
COSINES = [{"id": str(row), "row": row, "cosine": cosine} for row, cosine in enumerate(NUMBERS[0])]
SCORES = [1.0, 0.0, 1.0, 0.0, 1.0, 1.0, 0.0, 1.0]

CASES: dict[str, tuple[Rows, dict[str, Any], set[str]]] = {
    "geneval": (verdicts(), {}, {"geneval", "correct_images", "correct_prompts", "task_score"}),
    "geneval_long": (verdicts(), {}, {"geneval", "correct_images", "correct_prompts", "task_score"}),
    "demo_t2i": (verdicts(), {}, {"demo_t2i", "digit_accuracy", "colour_accuracy", "correct_prompts", "task_score"}),
    "demo": (DIGITS, {}, {"class_accuracy"}),
    "coco": (COSINES, {}, {"clip_score"}),
    "recon": (PAIRS, {"mean_batch": 32}, {"psnr", "ssim", "l1"}),
    "wise": (judged([*SCORES[:1], None, *SCORES[2:]]), {"repeats": 1}, {"wiscore", "category_score"}),
    "wise_legacy": (judged(SCORES, 2), {"repeats": 2}, {"wiscore", "category_score"}),
    "dpg": (answers(), {}, {"dpg", "dpg_corrected", "category_score", "detail_score"}),
}


def source(name: str) -> ItemSource:
    return ItemSource(benchmark=name, options=CASES[name][1], asset=lambda asset: next(QUESTIONS.iterdir()))


def mean_of(values: Sequence[ItemValue]) -> float:
    groups: dict[str, list[ItemValue]] = {}
    for value in values:
        groups.setdefault(value.group, []).append(value)
    return difference(
        [
            Stratum(
                sums=np.array([v.value for v in found]), counts=np.ones(len(found)), weight=found[0].weight
            )
            for found in groups.values()
        ]
    )  # fmt: skip


def test_every_benchmark_that_states_its_items_is_tested():
    benchmarks = Catalog.load(find_project()).benchmarks
    assert {name for name, benchmark in benchmarks.items() if read_recompute(benchmark)} == set(CASES)


@pytest.mark.parametrize("name", sorted(CASES))
def test_the_values_of_the_items_give_the_metrics(name: str):
    recompute = read_recompute(Catalog.load(find_project()).benchmark(name))
    assert recompute is not None
    items, _, paired = CASES[name]
    metrics = {(m.name, m.category): m for m in recompute.metrics_from_items(items, source(name))}
    values: dict[tuple[str, str | None], list[ItemValue]] = {}
    for value in recompute.values_from_items(items, source(name)):
        values.setdefault((value.metric, value.category), []).append(value)
    assert {metric for metric, _ in values} == paired
    assert values.keys() <= metrics.keys()
    assert {key for key in metrics if key[0] in paired} == values.keys()
    for key, found in values.items():
        assert len({value.item for value in found}) == len(found), key
        assert math.isclose(mean_of(found), metrics[key].value or 0.0, rel_tol=1e-12, abs_tol=1e-12), key


def test_a_recompute_imports_nothing_heavy():
    code = (
        "import sys; from harness.catalog.benchmarks import Catalog, read_recompute;"
        "from harness.catalog.project import find_project;"
        "[read_recompute(b) for b in Catalog.load(find_project()).benchmarks.values()];"
        "print([name for name in ('torch', 'transformers', 'scipy', 'tensorflow') if name in sys.modules])"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"
