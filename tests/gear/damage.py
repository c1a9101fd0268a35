"""Files as disks and copies damage them."""

from __future__ import annotations

import random


def damaged(whole: bytes, rng: random.Random, within: int | None = None) -> bytes:
    """A copy with one bit turned round, one byte overwritten, a piece cut out or an end cut off.

    within: the damage begins within so many first bytes, where a file's structure is; None: anywhere.
    """
    place, copy = rng.randrange(min(len(whole), within or len(whole))), bytearray(whole)
    match rng.choice(("bit", "bit", "byte", "cut", "end")):
        case "bit":
            copy[place] ^= 1 << rng.randrange(8)
        case "byte":
            copy[place] = rng.randrange(256)
        case "cut":
            del copy[place : place + rng.randrange(1, 200)]
        case "end":
            del copy[place:]
    return bytes(copy)
