"""The ranges of a configuration's numbers: types of fields, which `harness.contract.fields` reads and checks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from harness.contract.fields import OrInfinity, Within


@dataclass(frozen=True)
class Above:
    """An exclusive lower bound."""

    low: float

    def holds(self, value: float) -> bool:
        """Whether a number is above it."""
        return value > self.low

    def __str__(self) -> str:
        return f"above {self.low}"


@dataclass(frozen=True)
class OneOrFrom:
    """A whole number that counts from `low`, or the one value `special` that stands for a choice."""

    special: int
    low: int

    def holds(self, value: int) -> bool:
        """Whether a number is either."""
        return value == self.special or value >= self.low

    def __str__(self) -> str:
        return f"of at least {self.low}, or {self.special}"


Count = Annotated[int, Within(1)]
"""A number of things of which there must be one."""
Several = Annotated[int, Within(2)]
Natural = Annotated[int, Within(0)]
"""A number of things that may be missing; as an interval, 0 usually means never."""
Seed = Annotated[int, Within(0, 2**63)]
"""What every generator of random numbers takes."""
Weight = Annotated[float, Within(0)]
"""A factor, rate or coefficient; 0 turns its term off. A negative one would turn the gradient around."""
Positive = Annotated[float, Above(0)]
Fraction = Annotated[float, Within(0, 1)]
"""From 0 to below 1: a decay, or a dropout probability."""
Guidance = Annotated[float, Within(1)]
"""A guidance scale; 1 is no guidance, and numbers below would be drawn as 1."""
Bound = Annotated[float, OrInfinity(0)]
"""An upper bound for something; 0 and infinity mean none."""
