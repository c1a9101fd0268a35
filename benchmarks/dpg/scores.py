"""From answers to DPG-Bench's numbers. Pure: answers are texts from any source.

A question scores 1 when the answer is exactly "yes". On each tile, questions whose parents score 0 are set to 0; the
tile's score is the mean of its questions, the image's the mean of its tiles, and DPG-Bench is 100 times the mean over
the images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.dpg.questions import Item, Question

YES = "yes"


class MissingParent(ValueError):
    """A question depends on one that its item does not have. The original fails on such an item and leaves it out."""


def raw_scores(item: Item, answers: Sequence[str]) -> dict[int, float]:
    """Number of each question -> 1 or 0, before dependencies; case and white space matter."""
    return {question.number: float(answer == YES) for question, answer in zip(item.questions, answers, strict=True)}


def apply_dependencies(item: Item, scores: Mapping[int, float], *, lenient: bool = False) -> dict[int, float]:
    """Set questions to 0 whose parents score 0.

    In the order of the questions and on the current scores: a parent that comes earlier has already been set
    to 0 for its own parents, one that comes later has not.

    Args:
        lenient: ignore a parent that the item has no question for, instead of failing.
    Raises:
        MissingParent: there is such a parent.
    """
    scores = dict(scores)
    for question in item.questions:
        for parent in question.parents:
            if parent not in scores:
                if lenient:
                    continue
                raise MissingParent(f"question {question.number} depends on question {parent}, which is not asked")
            if scores[parent] == 0:
                scores[question.number] = 0.0
                break
    return scores


def tile_score(item: Item, answers: Sequence[str], *, lenient: bool = False) -> float:
    """The score of one tile (or one separate image), 0..1, from its answers in the order of the questions."""
    scores = apply_dependencies(item, raw_scores(item, answers), lenient=lenient)
    return mean([scores[number] for number in scores])


@dataclass(frozen=True, kw_only=True)
class ImageScore:
    """The scores of one prompt's tiles."""

    key: str
    tiles: tuple[float, ...]
    last_tile_raw: Mapping[int, float]
    """Question -> 1 or 0 on the last tile, before dependencies; the categories use these."""

    @property
    def mean(self) -> float:
        """Mean over the tiles, 0..1."""
        return mean(self.tiles)


def score_image(key: str, item: Item, answers: Sequence[Sequence[str]], *, lenient: bool = False) -> ImageScore:
    """Score a prompt's tiles.

    Args:
        answers: for each tile, one answer per question.
        lenient: see `apply_dependencies`.
    Raises:
        MissingParent: the original would leave the image out.
    """
    return ImageScore(
        key=key,
        tiles=tuple(tile_score(item, tile, lenient=lenient) for tile in answers),
        last_tile_raw=raw_scores(item, answers[-1]),
    )


def dpg_score(images: Sequence[ImageScore]) -> float:
    """DPG-Bench: 100 times the mean over the images that were scored."""
    return 100.0 * mean([image.mean for image in images])


@dataclass(frozen=True, kw_only=True)
class CategoryScore:
    """A category of questions: raw answers on the last tile, pooled over the images."""

    yes: int
    questions: int

    @property
    def score(self) -> float:
        """Percent answered yes."""
        return 100.0 * self.yes / self.questions


def category_scores(
    items: Mapping[str, Item], images: Sequence[ImageScore], *, broad: bool
) -> dict[str, CategoryScore]:
    """Category -> its score, sorted by name; level 1 when `broad`, else level 2."""
    answers: dict[str, list[float]] = {}
    for image in images:
        questions: dict[int, Question] = {question.number: question for question in items[image.key].questions}
        for number, value in image.last_tile_raw.items():
            question = questions[number]
            answers.setdefault(question.broad_category if broad else question.category, []).append(value)
    return {
        name: CategoryScore(yes=int(sum(values)), questions=len(values)) for name, values in sorted(answers.items())
    }


def mean(values: Sequence[float]) -> float:
    """Plain mean; ValueError for no values."""
    if not values:
        raise ValueError("there is nothing to take the mean of")
    return sum(values) / len(values)
