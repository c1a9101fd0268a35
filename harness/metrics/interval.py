"""How sure a share is."""

from __future__ import annotations

import math

Z_95 = 1.959963984540054
"""Two-sided 95 % quantile of the standard normal."""


def wilson_interval(hits: int, count: int, *, z: float = Z_95) -> tuple[float, float]:
    """95 % confidence interval of a share of `hits` in `count` (Wilson 1927), within [0, 1], sensible near 0 and 1 too.

    Raises ValueError unless 0 <= hits <= count and count >= 1.
    """
    if not 0 <= hits <= count or count < 1:
        raise ValueError(f"a share needs 0 <= hits <= count and count >= 1, got {hits} of {count}")
    share, weight = hits / count, z * z / count
    centre = (share + weight / 2) / (1 + weight)
    margin = z / (1 + weight) * math.sqrt(share * (1 - share) / count + weight / (4 * count))
    # Rounding must not leave the share itself outside, at 0 and 1 above all.
    return max(0.0, min(share, centre - margin)), min(1.0, max(share, centre + margin))
