"""Several processes of the same command, one per GPU, unless torchrun has started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from harness.contract.errors import EXPLAINED_STATUSES, EnvironmentFailure, UserError

_POLL_S = 0.2


class ProcessesFailed(UserError):
    """The processes have printed their own errors; `exit_code` is theirs."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def run_processes(count: int, is_finished: Callable[[], bool]) -> None:
    """Run this same command `count` times at once, and once more alone if the set still has to be assembled.

    A process that dies does not stop the others: they draw its share. Raises ProcessesFailed when the set is still not
    finished, or no process succeeded: a finished set is then not theirs.
    """
    codes = _run([_environment(rank, count) for rank in range(count)])
    if not is_finished() and 0 in codes:  # all images are drawn, but the process that assembles them died
        codes = _run([_environment(0, 1)])
    if 0 not in codes or not is_finished():
        failed = [code for code in codes if code]
        own = [code for code in failed if code in EXPLAINED_STATUSES]
        raise ProcessesFailed(
            f"{len(failed)} of {len(codes)} sampling processes ended early; finished shards are kept, "
            "run the same command again to resume.",
            own[0] if own else EnvironmentFailure.exit_code,
        )


def _environment(rank: int, count: int) -> dict[str, str]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = os.environ.get("OMP_NUM_THREADS", str(max(1, cores // count)))
    ranks = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count), "GEAR_PARENT": str(os.getpid())}
    return {**os.environ, **ranks, "OMP_NUM_THREADS": threads}


def _run(environments: Sequence[dict[str, str]]) -> list[int]:
    """Exit codes, once all have ended. A signal to stop is passed on to them."""
    command = [sys.executable, "-m", "gear", *sys.argv[1:]]
    processes = [subprocess.Popen(command, env=environment) for environment in environments]
    with _signals_go_to(processes):
        try:
            while any(process.poll() is None for process in processes):
                time.sleep(_POLL_S)
        finally:
            for process in processes:
                process.terminate()
    return [process.wait() for process in processes]


@contextmanager
def _signals_go_to(processes: Sequence[subprocess.Popen[bytes]]) -> Iterator[None]:
    def pass_on(number: int, frame: FrameType | None) -> None:
        for process in processes:
            process.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
