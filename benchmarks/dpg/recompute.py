"""DPG-Bench's numbers from mPLUG's answers and the question table, without images or network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from benchmarks.dpg.metrics import Scored, metrics, score_prompts
from benchmarks.dpg.questions import read_questions
from harness.contract.items import ItemSource, ItemValue, Row
from harness.contract.record import Metric

QUESTIONS = "dpg-questions"


def metrics_from_items(items: Sequence[Row], source: ItemSource) -> list[Metric]:
    """Every metric, from the images that were answered."""
    return metrics(compared(items, source), corrected(items, source))


def values_from_items(items: Sequence[Row], source: ItemSource) -> Iterator[ItemValue]:
    """The score of each prompt, and for the categories each answer that counts."""
    found = compared(items, source)
    for name, scored in (("dpg", found), ("dpg_corrected", corrected(items, source))):
        for prompt in scored.prompts:
            yield ItemValue(metric=name, item=prompt.key, value=100.0 * prompt.mean, prompt=prompt.key)
    for prompt in found.prompts:
        questions = {question.number: question for question in found.items[prompt.key].questions}
        for number, value in prompt.last_tile_raw.items():
            both = {
                "category_score": questions[number].broad_category,
                "detail_score": questions[number].category,
            }
            for name, category in both.items():
                yield ItemValue(
                    metric=name,
                    category=category,
                    item=f"{prompt.key}, question {number}",
                    value=100.0 * value,
                    prompt=prompt.key,
                )


def compared(items: Sequence[Row], source: ItemSource) -> Scored:
    """As the original scores: without the questions and prompts that it leaves out."""
    return score_prompts(_answered(items), read_questions(source.asset(QUESTIONS)))


def corrected(items: Sequence[Row], source: ItemSource) -> Scored:
    """With every question and prompt."""
    questions = read_questions(source.asset(QUESTIONS), skip_first_row=False)
    return score_prompts(_answered(items), questions, lenient=True)


def _answered(items: Sequence[Row]) -> list[Row]:
    return [row for row in items if "answers" in row]
