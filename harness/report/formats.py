"""Numbers, durations and counts as a reader wants to see them. Pure functions of values, no markup."""

from __future__ import annotations

import math
from collections.abc import Sequence

NOT_A_NUMBER = "not a number"
MOST_DECIMALS = 6


def format_together(values: Sequence[float]) -> list[str]:
    """Format numbers that are shown side by side: same decimals, and enough of them to tell unequal numbers apart.

    NaN is spelt out, infinities keep their sign, and magnitudes below 1e-4 or from 1e7 on use scientific notation.
    """
    finite = [v for v in values if math.isfinite(v)]
    if not finite:
        return [format_special(v) for v in values]
    largest = max(abs(v) for v in finite)
    if largest >= 1e7 or 0 < largest < 1e-4:
        return [f"{v:.3g}" if math.isfinite(v) else format_special(v) for v in values]
    decimals = _decimals(largest)
    while decimals < MOST_DECIMALS and len({f"{v:.{decimals}f}" for v in finite}) < len(set(finite)):
        decimals += 1
    return [_fixed(v, decimals) if math.isfinite(v) else format_special(v) for v in values]


def format_value(value: float) -> str:
    """One number on its own; see `format_together`."""
    return format_together([value])[0]


def format_special(value: float) -> str:
    """NaN and the infinities in words."""
    if math.isnan(value):
        return NOT_A_NUMBER
    return "∞" if value > 0 else "−∞"


def format_interval(interval: Sequence[float] | None, *, like: str = "") -> str:
    """`[3.81, 4.02]` with as many decimals as the value it belongs to (`like`), or at least as the bounds need."""
    if interval is None:
        return ""
    low, high = interval
    decimals = len(like.partition(".")[2]) if like and "e" not in like else 0
    if decimals and f"{low:.{decimals}f}" != f"{high:.{decimals}f}":
        return f"[{_fixed(low, decimals)}, {_fixed(high, decimals)}]"
    return "[" + ", ".join(format_together([low, high])) + "]"


def format_count(count: int | None) -> str:
    """`50,000`; nothing for an unknown count."""
    return "" if count is None else f"{count:,}"


def arrow(higher_is_better: bool) -> str:
    """The arrow for the better direction."""
    return "↑" if higher_is_better else "↓"


def in_words(names: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    if len(names) < 2:
        return "".join(names)
    return ", ".join(names[:-1]) + " and " + names[-1]


def plural(count: int, one: str, many: str | None = None) -> str:
    """`1 metric`, `3 metrics`."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def _decimals(largest: float) -> int:
    if largest >= 100:
        return 1
    return 2 if largest > 1 else 3  # shares reach 1 and need three digits there too


def _fixed(value: float, decimals: int) -> str:
    return f"{value:.{decimals}f}".replace("-", "−")
