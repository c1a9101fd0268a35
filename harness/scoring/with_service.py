"""Runs a command beside a service that it asks, and ends both:

    python -m harness.scoring.with_service VARIABLE SERVICE ... --- COMMAND ...

SERVICE prints `VARIABLE=ADDRESS` on a line of its own once it has answered a question, and serves until it is ended;
`SERVICE ... --probe ADDRESS` ends with 0 if it answers one now. COMMAND finds VARIABLE in its environment, and goes on
with its own work when it is started again.

A service that dies, or answers no more when the command has given up, is started again once, and the command with it.
What the service prints is printed too, behind "service: ".
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import IO, Any

from harness.contract.errors import (
    EXIT_ENVIRONMENT,
    EXIT_MISSING_ASSET,
    EXIT_STOPPED,
    EXIT_USAGE,
    EnvironmentFailure,
    UserError,
)

SEPARATOR = "---"
_POLL_S = 0.1
_GRACE_S = 4.0
"""Between asking a process to end and killing it: both are asked within the time that the harness gives this one."""
_LAST_WORDS_S = 1.0
_PROBE_WITHIN_S = 120.0


class _ServiceDied(Exception):
    """The service has ended, or answers no more."""

    def __init__(self, what: str, exit_code: int | None = None) -> None:
        super().__init__(what)
        self.exit_code = exit_code


class _Stopped(BaseException):
    """A signal asks for the end."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status, or the service's where that has told the user what to put right."""
    variable, *words = sys.argv[1:] if argv is None else argv
    service, command = words[: words.index(SEPARATOR)], words[words.index(SEPARATOR) + 1 :]
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _stop)
    try:
        return run_beside(variable, service, command)
    except UserError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    except _Stopped:
        return EXIT_STOPPED


def run_beside(variable: str, service: Sequence[str], command: Sequence[str]) -> int:
    """Run `command` beside `service`, twice if the service dies.

    Raises:
        EnvironmentFailure: it died twice.
    """
    died = []
    for again in (True, False):
        try:
            with _Service(variable, service) as served:
                return _run_command(command, served)
        except _ServiceDied as death:
            if death.exit_code in (EXIT_USAGE, EXIT_MISSING_ASSET):  # it has said what is wrong, and would say it again
                return death.exit_code
            died.append(str(death))
            if again:
                print(f"The service {death}; it is started again.", flush=True)
    raise EnvironmentFailure(
        f"The service {died[0]}, and when it had been started again, it {died[1]}; what it said stands behind "
        f'"service:" in this log. Finished work is kept: put it right, and run the same command again.'
    )


class _Service:
    """The service while it runs, in a process group of its own; use as a context manager."""

    def __init__(self, variable: str, command: Sequence[str]) -> None:
        self.variable, self.command = variable, list(command)
        self.address = ""
        self.is_ending = False

    def __enter__(self) -> _Service:
        self.process = subprocess.Popen(
            self.command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        assert self.process.stdout is not None
        self.reader = threading.Thread(target=self._read, args=(self.process.stdout,), daemon=True)
        self.reader.start()
        try:
            while not self.address:
                self.require()
                time.sleep(_POLL_S)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.is_ending = True
        _end_group(self.process)
        self.reader.join(_LAST_WORDS_S)

    def require(self) -> None:
        """Raise _ServiceDied if it has ended."""
        code = self.process.poll()
        if code is not None:
            raise _ServiceDied(f"ended with exit code {code}", code)

    def require_an_answer(self) -> None:
        """Raise _ServiceDied unless it answers a question now."""
        probe = [*self.command, "--probe", self.address]
        try:
            outcome = subprocess.run(
                probe, stdin=subprocess.DEVNULL, capture_output=True, timeout=_PROBE_WITHIN_S, check=False
            )
        except subprocess.TimeoutExpired:
            raise _ServiceDied("answers no more") from None
        self.require()
        if outcome.returncode:
            raise _ServiceDied("answers no more")

    def _read(self, stream: IO[str]) -> None:
        with suppress(ValueError):  # closed while reading
            for line in stream:
                name, _, value = line.rstrip("\n").partition("=")
                if name == self.variable:
                    self.address = value
                elif not self.is_ending:  # what a server says of its end would hide what the command has said last
                    print(f"service: {line.rstrip()}", flush=True)


def _run_command(command: Sequence[str], service: _Service) -> int:
    environment = {**os.environ, service.variable: service.address}
    child = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL)
    try:
        while (code := child.poll()) is None:
            service.require()
            time.sleep(_POLL_S)
    finally:
        _end(child)
    if code == EXIT_ENVIRONMENT:  # it may have lost the service before we noticed
        service.require_an_answer()
    return code


def _end(child: subprocess.Popen[Any]) -> None:
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _end_group(process: subprocess.Popen[Any]) -> None:
    """End a process and all it has started: a part of a dead server may still hold the GPU."""
    _signal_group(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(_GRACE_S)
    _signal_group(process.pid, signal.SIGKILL)
    process.wait()


def _signal_group(group: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _stop(number: int, frame: object) -> None:
    signal.signal(number, signal.SIG_IGN)  # once is enough: what follows must not be cut short
    raise _Stopped


if __name__ == "__main__":
    raise SystemExit(main())
