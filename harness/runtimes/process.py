"""Runs one child process: yields its lines as they come, ends it on time, leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from harness.contract.errors import EnvironmentFailure
from harness.runtimes import OnLine, Outcome

_POLL_S = 0.1
_GRACE_S = 10.0
"""Between asking a process to stop and killing it."""


def run_process(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path,
    on_line: OnLine,
    stopped: Callable[[], bool],
    timeout_s: float | None = None,
) -> Outcome:
    """Run a command in a process group of its own; stdout and stderr arrive as lines, ended by a carriage return too.

    Raises:
        EnvironmentFailure: the program is not there.
    """
    started = time.monotonic()
    try:
        child = subprocess.Popen(
            argv,
            env=dict(env),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
    except OSError as error:
        raise EnvironmentFailure(
            f"{argv[0]}: cannot be started ({error.strerror}); check that it is installed."
        ) from error
    assert child.stdout is not None
    reader = threading.Thread(target=_read, args=(child.stdout, on_line), daemon=True)
    reader.start()
    reason = _wait(child, stopped, None if timeout_s is None else started + timeout_s)
    # Processes that the command started and left running would keep the pipe open and go on writing.
    _signal_group(child.pid, signal.SIGKILL)
    reader.join(timeout=_GRACE_S)
    return Outcome(exit_code=child.returncode, seconds=time.monotonic() - started, reason=reason)


def _read(stream: IO[str], on_line: OnLine) -> None:
    with suppress(ValueError):  # closed while reading, when the group was killed
        for line in stream:
            on_line(line.rstrip("\n"))


def _wait(child: subprocess.Popen[str], stopped: Callable[[], bool], deadline: float | None) -> str:
    while True:
        try:
            child.wait(_POLL_S)
            return ""
        except subprocess.TimeoutExpired:
            late = deadline is not None and time.monotonic() > deadline
            if late or stopped():
                _stop(child)
                return "timeout" if late else "cancelled"


def _stop(child: subprocess.Popen[str]) -> None:
    """Ask the whole group to stop, so that it can save its work; then kill it."""
    _signal_group(child.pid, signal.SIGTERM)
    try:
        child.wait(_GRACE_S)
    except subprocess.TimeoutExpired:
        _signal_group(child.pid, signal.SIGKILL)
        child.wait()


def _signal_group(group: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
