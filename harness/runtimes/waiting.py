"""Waiting for what may come late or never: the end of a step, the answer of an engine."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

Answer = TypeVar("Answer")

_POLL_S = 0.1


class GivenUp(Exception):
    """There was no answer yet when the wait had to end."""


@dataclass(frozen=True, kw_only=True)
class Limit:
    """Until when a step may run; it begins when this is made."""

    stopped: Callable[[], bool] = lambda: False
    """Whether the user wants it to end."""
    timeout_s: float | None = None
    started: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self.started

    @property
    def reason(self) -> str:
        """Why the step has to end now: "timeout" or "cancelled"; "" while it may run."""
        if self.timeout_s is not None and self.seconds > self.timeout_s:
            return "timeout"
        return "cancelled" if self.stopped() else ""


def ask(call: Callable[[], Answer], limit: Limit) -> Answer:
    """What `call` returns or raises, or GivenUp when `limit` is reached before.

    It runs in a thread of its own, which is left alone then: a call that hangs would keep a time limit or Ctrl-C from
    working.
    """
    answers: queue.SimpleQueue[tuple[Answer | None, BaseException | None]] = queue.SimpleQueue()
    threading.Thread(target=_answer, args=(call, answers), daemon=True).start()
    while True:
        try:
            answer, error = answers.get(timeout=_POLL_S)
            break
        except queue.Empty:
            if limit.reason:
                raise GivenUp from None
    if error is not None:
        raise error
    return answer  # type: ignore[return-value] # None only where the call returned it


def _answer(call: Callable[[], Answer], answers: queue.SimpleQueue[tuple[Answer | None, BaseException | None]]) -> None:
    try:
        answers.put((call(), None))
    except BaseException as error:
        answers.put((None, error))
