"""Permutations of large sets: single entries, without holding the rest in memory.

A stored permutation of 100 million samples takes 800 MB, in every data worker of every process. Beyond a few million
entries it is therefore computed: a Feistel network is a permutation of the numbers below a power of four, and applying
it again until the number lies below the size gives a permutation of any size (Black and Rogaway, "Ciphers with
arbitrary finite domains", 2002).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]

LARGEST_DRAWN = 1 << 22
"""Entries up to which a permutation is drawn and stored: 32 MB."""
_ROUNDS = 8
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
"""Multipliers of SplitMix64's finalizer."""


def permuted(positions: Indices, num_items: int, key: Sequence[int]) -> Indices:
    """Entries `positions` (n,) of the permutation of 0 .. num_items - 1 that `key` determines."""
    if num_items <= LARGEST_DRAWN:
        return _drawn(num_items, tuple(key))[positions]
    return computed(positions, num_items, key)


@lru_cache(maxsize=2)
def _drawn(num_items: int, key: tuple[int, ...]) -> Indices:
    return np.random.default_rng(key).permutation(num_items)


def computed(positions: Indices, num_items: int, key: Sequence[int]) -> Indices:
    """The same by a Feistel network of 8 rounds, for sets of any size; not the permutation that `_drawn` gives."""
    half_bits = np.uint64(max(1, -(-(num_items - 1).bit_length() // 2)))
    keys = np.random.default_rng(key).integers(0, 2**64, size=_ROUNDS, dtype=np.uint64)
    found = _feistel(positions.astype(np.uint64), half_bits, keys)
    while (outside := found >= num_items).any():  # the domain is less than four times as large: few steps
        found[outside] = _feistel(found[outside], half_bits, keys)
    return found.astype(np.int64)


def _feistel(
    numbers: npt.NDArray[np.uint64], half_bits: np.uint64, keys: npt.NDArray[np.uint64]
) -> npt.NDArray[np.uint64]:
    mask = (np.uint64(1) << half_bits) - np.uint64(1)
    left, right = numbers >> half_bits, numbers & mask
    for key in keys:
        left, right = right, left ^ (_mixed(right + key) & mask)
    return (left << half_bits) | right


def _mixed(numbers: Words) -> Words:
    """Every bit of the result depends on every bit of the number; arithmetic is modulo 2**64."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * _MIX[0]
    numbers = (numbers ^ (numbers >> np.uint64(27))) * _MIX[1]
    return numbers ^ (numbers >> np.uint64(31))
