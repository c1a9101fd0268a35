"""The two protocols of WISE: which prompt belongs to which category, and each category's weight.

Numbers of the two are not comparable: prompts, judge and scale differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class WiseProtocol:
    """Categories by range of prompt ids, and their weights."""

    benchmark: str
    version: int
    categories: Mapping[str, range]
    """In the order of the report."""
    weights: Mapping[str, float]

    def category_of(self, prompt_id: int) -> str | None:
        """The category of a prompt; None for an id that the benchmark does not have."""
        return next((name for name, ids in self.categories.items() if prompt_id in ids), None)

    @property
    def prompt_ids(self) -> range:
        """Every prompt id."""
        return range(1, sum(len(ids) for ids in self.categories.values()) + 1)


VERIFIED = WiseProtocol(
    benchmark="wise",
    version=1,
    categories={
        "CULTURE": range(1, 401),
        "TIME": range(401, 521),
        "SPACE": range(521, 641),
        "BIOLOGY": range(641, 761),
        "PHYSICS": range(761, 881),
        "CHEMISTRY": range(881, 1001),
    },
    weights={"CULTURE": 0.40, "TIME": 0.12, "SPACE": 0.12, "BIOLOGY": 0.12, "PHYSICS": 0.12, "CHEMISTRY": 0.12},
)
"""WISE_Verified: one binary score per image."""

LEGACY = WiseProtocol(
    benchmark="wise_legacy",
    version=1,
    categories={
        "CULTURE": range(1, 401),
        "TIME": range(401, 568),
        "SPACE": range(568, 701),
        "BIOLOGY": range(701, 801),
        "PHYSICS": range(801, 901),
        "CHEMISTRY": range(901, 1001),
    },
    weights={"CULTURE": 0.4, "TIME": 0.167, "SPACE": 0.133, "BIOLOGY": 0.1, "PHYSICS": 0.1, "CHEMISTRY": 0.1},
)
"""The protocol of the paper: three scores of 0 to 2 per image by GPT-4o. The weights are the shares of the prompts."""

PROTOCOLS = {protocol.benchmark: protocol for protocol in (VERIFIED, LEGACY)}
