"""What a person sees while a plan runs: a bar per running step on a terminal, plain lines anywhere else."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from harness.contract.progress import ProgressLine, format_seconds
from harness.planning.steps import Step
from harness.running.terminal import terminal
from harness.store.run_record import StepResult

_LINE_EVERY_S = 30.0
_MARKS = {"cached": ("·", "cyan"), "run": ("✓", "green"), "resumed": ("✓", "green"), "failed": ("✗", "bold red")}
_WORDS = {"cached": "from cache", "run": "", "resumed": "continued", "failed": "failed", "skipped": "skipped"}


def stderr() -> Console:
    """A console on stderr that prints text as it is."""
    return terminal(stderr=True)


class TerminalReporter:
    """Shows the steps while they run; use as a context manager.

    Args:
        console: where to; bars only if it is a terminal.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bars = Progress(
            TextColumn("  {task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[state]}", markup=False),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}
        self._last_line: dict[str, float] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> TerminalReporter:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def step_started(self, step: Step) -> None:
        """Show a bar."""
        with self._lock:
            self._tasks[step.name] = self._bars.add_task(step.name, total=None, state="")
        if not self.console.is_terminal:
            self._print("…", "", step.name, "started")

    def say(self, step: Step, text: str) -> None:
        """Print one line."""
        self._print("…", "yellow", step.name, text)

    def progress(self, step: Step, line: ProgressLine) -> None:
        """Move the bar, or print a line now and then."""
        left = "" if line.eta_s is None else f", {format_seconds(line.eta_s)} left"
        state = f"{line.done:,}/{line.total:,} {line.what}{left}"
        task = self._tasks.get(step.name)
        if task is not None:
            self._bars.update(task, completed=line.done, total=line.total, state=state)
        now = time.monotonic()
        if not self.console.is_terminal and now - self._last_line.setdefault(step.name, now) >= _LINE_EVERY_S:
            self._last_line[step.name] = now
            self._print("…", "", step.name, state)

    def step_ended(self, step: Step, result: StepResult) -> None:
        """Remove the bar and print the result."""
        with self._lock, suppress(KeyError):
            self._bars.remove_task(self._tasks.pop(step.name))
        mark, style = _MARKS.get(result.status, ("–", "dim"))
        if result.status == "waiting":
            mark, words = "–", "stopped; the same command continues"
        else:
            seconds = format_seconds(result.seconds)
            partly = "some items could not be scored" if result.is_partly_scored else ""
            words = ", ".join(word for word in (_WORDS[result.status], seconds, partly, result.error) if word)
        self._print(mark, style, step.name, words)

    def _print(self, mark: str, style: str, name: str, words: str) -> None:
        self.console.print(
            Text.assemble((f"{mark} ", style), (name, "bold"), f"  {words}"), highlight=False, soft_wrap=True
        )
