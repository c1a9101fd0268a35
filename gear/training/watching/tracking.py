"""Progress of a run: a JSON-lines log, and a progress bar with loss, images/s and ETA."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from harness.contract.files import write_atomically
from harness.contract.progress import Progress as ProgressLines


class JsonlLog:
    """`log.jsonl`: one object per logged step. Opened at a step, it drops what a killed run logged after that step."""

    def __init__(self, path: Path, after_step: int) -> None:
        self.path = path
        kept = [line for line in _whole_lines(path) if json.loads(line)["step"] <= after_step]
        with write_atomically(path, "w") as stream:
            stream.writelines(kept)
        self._stream = path.open("a", encoding="utf-8")

    def write(self, values: Mapping[str, Any]) -> None:
        self._stream.write(json.dumps(values) + "\n")
        self._stream.flush()

    def close(self) -> None:
        self._stream.close()


def _whole_lines(path: Path) -> list[str]:
    """The lines of the file, without an incomplete last one."""
    if not path.exists():
        return []
    return [line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("}\n")]


class Meter:
    """Shows how far a stage is: a bar on a terminal, otherwise progress lines for a program that reads stderr."""

    def __init__(self, what: str, total: int, done: int = 0) -> None:
        self.what, self.total, self.done = what, total, done
        self._first = done
        self._started = time.monotonic()
        self._images = 0
        self._bar: Progress | None = None
        self._lines: ProgressLines | None = None
        console = Console(stderr=True)
        if console.is_terminal:
            columns = (
                TextColumn("[bold]{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[figures]}"),
                TimeRemainingColumn(),
            )
            self._bar = Progress(*columns, console=console)
            self._bar.start()
            self._task = self._bar.add_task(what, total=total, completed=done, figures="")
        else:
            self._lines = ProgressLines(total - done, what, sys.stderr)

    @property
    def images_per_s(self) -> float:
        return self._images / max(time.monotonic() - self._started, 1e-9)

    def advance(self, images: int, loss: float | None = None) -> None:
        self.done += 1
        self._images += images
        figures = f"{self.images_per_s:.0f} images/s" + (f"  loss {loss:.3f}" if loss is not None else "")
        if self._bar is not None:
            update: dict[str, Any] = {"completed": self.done}
            if loss is not None:
                update["figures"] = figures
            self._bar.update(self._task, **update)
        elif self._lines is not None:
            self._lines.advance()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
