"""Weights from a counter: large networks in the golden cases need no stored weights, only this recipe.

Element i of the j-th tensor is uniform in [lo, hi): u = (splitmix64(c) >> 40) / 2^24 with c = s 2^40 + i and
s = 1000 seed + j, computed in float64 and rounded to float32.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor


def uniform(stream: int, count: int) -> np.ndarray:
    """`count` float64 values in [0, 1) of stream s."""
    with np.errstate(over="ignore"):  # the arithmetic is modulo 2^64
        z = np.arange(count, dtype=np.uint64) + np.uint64((stream << 40) % 2**64) + np.uint64(1)
        z *= np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return (z >> np.uint64(40)).astype(np.float64) / 2.0**24


def hash_weights(recipe: Mapping[str, Any], shapes: Mapping[str, Sequence[int]] | None = None) -> dict[str, Tensor]:
    """The float32 tensors of a recipe, by key; `shapes` where the recipe does not hold them."""
    shapes = recipe["shapes"] if shapes is None else shapes
    weights = {}
    for position, key in enumerate(recipe["order"]):
        low, high = recipe["range"][key]
        values = low + (high - low) * uniform(recipe["seed"] * 1000 + position, math.prod(shapes[key]))
        weights[key] = torch.from_numpy(values.astype(np.float32).reshape(tuple(shapes[key])))
    return weights
