"""Stopping on request: signals are noted, and the loop stops at a point where all processes can."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def noting_signals() -> Iterator[list[int]]:
    """Note SIGTERM, SIGINT and SIGUSR1 (Slurm's warning) instead of dying from them; a second SIGINT interrupts."""
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and received:
            raise KeyboardInterrupt
        received.append(number)

    caught = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
    before = {number: signal.signal(number, note) for number in caught}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
