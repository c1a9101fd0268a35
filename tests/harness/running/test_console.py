from __future__ import annotations

import io
import time

from rich.console import Console

from harness.contract.progress import ProgressLine
from harness.planning.steps import Step
from harness.running.console import TerminalReporter
from harness.store.run_record import StepResult

STEP = Step(name="sample-[red]toy", kind="sample", argv=("true",))
HALF = ProgressLine(what="images", done=5, total=10, elapsed_s=3.0, eta_s=3.0)


def watch(*, terminal: bool, **result: object) -> str:
    stream = io.StringIO()
    with TerminalReporter(Console(file=stream, force_terminal=terminal, width=120)) as reporter:
        reporter.step_started(STEP)
        reporter.say(STEP, "building the environment")
        reporter.progress(STEP, HALF)
        time.sleep(0.3 if terminal else 0)  # the bars are drawn ten times a second
        reporter.step_ended(STEP, StepResult(name=STEP.name, kind=STEP.kind, **result))  # type: ignore[arg-type]
    return stream.getvalue()


def test_without_a_terminal_there_are_plain_lines():
    text = watch(terminal=False, status="run", seconds=3.21)
    assert text.splitlines() == [
        "… sample-[red]toy  started",
        "… sample-[red]toy  building the environment",
        "✓ sample-[red]toy  3.21 s",
    ]


def test_a_terminal_has_a_bar_with_the_time_that_is_left():
    text = watch(terminal=True, status="run")
    assert "sample-[red]toy" in text and "5/10 images, 3.00 s left" in text


def test_it_says_how_a_step_came_about():
    words = {
        "cached": "from cache",
        "resumed": "continued",
        "skipped": "skipped",
        "waiting": "the same command continues",
    }
    for status, word in words.items():
        assert word in watch(terminal=False, status=status)
    assert "failed, 2.00 s, because" in watch(terminal=False, status="failed", seconds=2.0, error="because")
    assert "some items could not be scored" in watch(terminal=False, status="run", exit_code=5)
