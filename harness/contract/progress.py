"""Progress as JSON lines on stderr: people can read them, and the harness draws its bars from them."""

from __future__ import annotations

import json
import math
import sys
import time
from dataclasses import dataclass
from typing import TextIO

_INTERVAL_S = 0.5


@dataclass(frozen=True, kw_only=True)
class ProgressLine:
    """One report of progress, as read back from a log."""

    what: str
    """What is being counted, in the plural: "images", "questions"."""
    done: int
    total: int
    elapsed_s: float
    eta_s: float | None
    """Seconds that remain at the mean pace so far; None before the first unit is done."""


class Progress:
    """Counts units of work and writes at most two lines a second, plus the first and the last.

        progress = Progress(50_000, "images")
        for batch in batches:
            ...
            progress.advance(len(batch))

    Args:
        total: how many units there are.
        what: what is counted, in the plural.
        stream: where the lines go; `sys.stderr` when None.
    """

    def __init__(self, total: int, what: str, stream: TextIO | None = None) -> None:
        self.total = total
        self.what = what
        self.done = 0
        self._stream = stream if stream is not None else sys.stderr
        self._started = time.monotonic()
        self._written = self._started
        self._write()

    def advance(self, count: int = 1) -> None:
        """Count `count` more units as done."""
        self.done += count
        if self.done >= self.total or time.monotonic() - self._written >= _INTERVAL_S:
            self._write()

    def _write(self) -> None:
        self._written = time.monotonic()
        elapsed_s = self._written - self._started
        eta_s = round(elapsed_s / self.done * max(self.total - self.done, 0), 1) if self.done else None
        line = {
            "event": "progress",
            "what": self.what,
            "done": self.done,
            "total": self.total,
            "elapsed_s": round(elapsed_s, 1),
            "eta_s": eta_s,
        }
        print(json.dumps(line), file=self._stream, flush=True)


def parse_line(line: str) -> ProgressLine | None:
    """Read one line of a log: the progress it reports, or None when it is any other text."""
    if not line.lstrip().startswith("{"):
        return None
    try:
        row = json.loads(line)
        if row["event"] != "progress":
            return None
        eta_s = row["eta_s"]
        return ProgressLine(
            what=str(row["what"]),
            done=int(row["done"]),
            total=int(row["total"]),
            elapsed_s=float(row["elapsed_s"]),
            eta_s=None if eta_s is None else float(eta_s),
        )
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None


def format_seconds(seconds: float | None) -> str:
    """`0.42 s`, `12.3 s`, `3 min 20 s`, `2 h 05 min`; nothing when it was not measured."""
    if seconds is None or not math.isfinite(seconds):
        return ""
    if seconds < 9.995:
        return f"{seconds:.2f} s"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60:,} h {minutes % 60:02d} min"
