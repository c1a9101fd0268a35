"""A compact table of many strings."""

from __future__ import annotations

import os
from collections.abc import Iterable

import numpy as np


class StringTable:
    """Strings by index, stored as one block of bytes.

    A list of a million strings would be copied into every loader process by mere reading, which changes the reference
    counts and so the memory pages.
    """

    def __init__(self, strings: Iterable[str]) -> None:
        encoded = [os.fsencode(string) for string in strings]
        self._bytes = b"".join(encoded)
        self._ends = np.cumsum([0, *map(len, encoded)])

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, number: int) -> str:
        return os.fsdecode(self._bytes[self._ends[number] : self._ends[number + 1]])
