"""Several data sets combined into one, each with its share of an epoch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gear.data.base import ImageSource, Sample
from harness.contract.errors import UserError


class MixtureSource:
    """An epoch has as many samples as all sources together, of which source i gives its share.

    A source's samples are divided into as many equal stretches as it has places in an epoch, and each place takes a
    random sample of its stretch. A source with fewer places than samples shows different ones in every epoch and none
    twice; one with more places repeats all of its samples evenly.
    """

    def __init__(self, sources: Sequence[ImageSource], shares: Sequence[float] = ()) -> None:
        """shares: one per source, in any unit; none = equal."""
        shares = shares or [1.0] * len(sources)
        if len(shares) != len(sources) or min(shares) < 0 or not sum(shares) > 0:
            raise UserError(
                f"data.data_probs gives {len(shares)} shares for {len(sources)} sources; give one positive number each."
            )
        self.sources = list(sources)
        total = sum(len(source) for source in sources)
        self._ends = np.rint(np.cumsum(shares) / np.sum(shares) * total).astype(np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def item(self, index: int, rng: np.random.Generator) -> Sample:
        number = int(np.searchsorted(self._ends, index, side="right"))
        start = int(self._ends[number - 1]) if number else 0
        source, place, places = self.sources[number], index - start, int(self._ends[number]) - start
        first = place * len(source) // places
        last = max(first + 1, (place + 1) * len(source) // places)
        return source.item(int(rng.integers(first, last)), rng)
