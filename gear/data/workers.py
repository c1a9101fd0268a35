"""The processes that decode training images: what they do with signals, and what their failures are called."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from torch.utils.data import DataLoader

from harness.contract.errors import EnvironmentFailure

T = TypeVar("T")

_TO_MAIN = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
"""What batch systems, `timeout` and terminals send to every process of a job: only the main one has to act on it."""
_SHARED_MEMORY = "/dev/shm"


def start(loader: DataLoader[T]) -> Iterator[T]:
    """The batches of a loader whose workers leave signals to this process.

    The signals are held back while the workers start, which inherit that: none can die before `obey_only` runs.
    Raises EnvironmentFailure where no process can be started.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _TO_MAIN)
    try:
        return iter(loader)
    except OSError as error:
        raise EnvironmentFailure(
            f"{loader.num_workers} data-loading workers cannot be started ({error.strerror}); lower data.num_workers, "
            f"or allow more processes, memory and {_SHARED_MEMORY} (containers: --pids-limit, --memory, --shm-size)."
        ) from None
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def obey_only(main: int, worker: int) -> None:
    """In a worker: end when the process `main` says so by a signal, and ignore the same signals of everybody else."""
    if sys.platform == "linux":
        threading.Thread(target=_wait_for, args=(main,), daemon=True).start()


def _wait_for(main: int) -> None:
    while signal.sigwaitinfo(_TO_MAIN).si_pid != main:
        pass
    os._exit(0)


@contextmanager
def sharing() -> Iterator[None]:
    """Around moving tensors to shared memory, in a worker; raises EnvironmentFailure where there is too little.

    The queue to the main process would move them as well, but nobody hears of what fails in the queue, and the main
    process would wait for ever.
    """
    try:
        yield
    except RuntimeError as error:
        size = shutil.disk_usage(_SHARED_MEMORY).total >> 20 if Path(_SHARED_MEMORY).is_dir() else 0
        raise EnvironmentFailure(
            f"{_SHARED_MEMORY} ({size} MiB) cannot hold the batches of the data-loading workers "
            f"({str(error).rpartition(': ')[2]}); make it larger (docker run --shm-size=8g), or lower "
            "data.num_workers: 0 needs none of it."
        ) from None


@contextmanager
def explained() -> Iterator[None]:
    """A worker that died is an EnvironmentFailure. PyTorch reports it wherever the main process happens to be."""
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith(("DataLoader worker", "Pin memory thread")):
            raise
        raise EnvironmentFailure(
            f"a data-loading worker ended by itself ({_first_words(error)}), which usually means that memory ran out; "
            f"lower data.num_workers, or allow more memory and {_SHARED_MEMORY} (docker run --memory, --shm-size). "
            "The same command resumes from the last checkpoint."
        ) from None


def _first_words(error: RuntimeError) -> str:
    """PyTorch's sentence about the worker; the one with the signal comes first where there are two."""
    cause = error.__cause__
    words = cause if isinstance(cause, RuntimeError) else error
    return str(words).partition(". ")[0].rstrip(". ")
