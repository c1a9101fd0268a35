"""From judged images to WiScore: means by category, and their weighted sum.

The original reports nothing at all when one of the 1,000 ids is missing. Here the categories are reported with their
counts, and the overall score from the images that were scored, with a note that says how many were not.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from benchmarks.wise.protocols import WiseProtocol


@dataclass(kw_only=True)
class CategoryMean:
    """Running sum of the scores of one category."""

    total: float = 0.0
    count: int = 0
    is_share: bool = True
    """Every score so far is 0 or 1, so that the mean is the share of ones."""

    def add(self, score: float) -> None:
        """Count one more score."""
        self.total += score
        self.count += 1
        self.is_share &= score in (0, 1)

    @property
    def mean(self) -> float:
        """Mean of the scores; ZeroDivisionError when there are none."""
        return self.total / self.count


@dataclass(kw_only=True)
class Scores:
    """Scores by category, in order of first appearance."""

    protocol: WiseProtocol
    categories: dict[str, CategoryMean] = field(default_factory=dict)

    def add(self, prompt_id: int, score: float) -> bool:
        """Count one image's score; False when the benchmark has no such id."""
        category = self.protocol.category_of(prompt_id)
        if category is None:
            return False
        self.categories.setdefault(category, CategoryMean()).add(score)
        return True

    @property
    def means(self) -> dict[str, float]:
        """Category -> mean, for the categories that have any score."""
        return {name: self.categories[name].mean for name in self.protocol.categories if name in self.categories}

    @property
    def overall(self) -> float | None:
        """The weighted sum; None when a category has no score, since the weights need all of them."""
        means = self.means
        if len(means) < len(self.protocol.categories):
            return None
        return sum(weight * means[name] for name, weight in self.protocol.weights.items())


def aggregate(protocol: WiseProtocol, scores: Iterable[tuple[int, float]]) -> Scores:
    """(prompt id, score) pairs -> scores by category."""
    result = Scores(protocol=protocol)
    for prompt_id, score in scores:
        result.add(prompt_id, score)
    return result
