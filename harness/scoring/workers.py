"""The same work on several GPUs: one process per device, results as they come."""

from __future__ import annotations

import multiprocessing
import queue
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.process import BaseProcess
from typing import Any

from harness.contract.errors import EnvironmentFailure, UserError

Task = Any
Result = Any
Work = Callable[[Task], Result]
_POLL_S = 1.0


def run_on_devices(
    build: Callable[..., Work], arguments: Sequence[Any], tasks: Sequence[Task], devices: Sequence[str]
) -> Iterator[tuple[Task, Result]]:
    """Yield (task, result) for every task, in the order in which they are finished.

    Args:
        build: a function of a module (processes import it), called as `build(device, *arguments)` once per device;
            what it returns is called with each task.
        arguments: what can be pickled.
        tasks: divided among the devices in turn.
        devices: "cuda:0", "cuda:1", ... or "cpu". With one, everything happens in this process.
    Raises:
        UserError: raised in a worker, passed on unchanged.
        EnvironmentFailure: a worker was killed, or failed in another way.
    """
    devices = devices[: max(1, len(tasks))]
    if len(devices) == 1:
        work = build(devices[0], *arguments)
        yield from ((task, work(task)) for task in tasks)
        return
    context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
    results: Any = context.Queue()
    shares = [tasks[number :: len(devices)] for number in range(len(devices))]
    workers = [
        context.Process(target=_worker, args=(build, device, arguments, share, results), daemon=True)
        for device, share in zip(devices, shares, strict=True)
    ]
    for worker in workers:
        worker.start()
    try:
        for _ in tasks:
            yield _next(results, workers)
    finally:
        for worker in workers:
            worker.terminate()
            worker.join()


def _next(results: Any, workers: Sequence[BaseProcess]) -> tuple[Task, Result]:
    while True:
        dead = [worker for worker in workers if worker.exitcode not in (None, 0)]
        try:
            kind, task, result = results.get(timeout=_POLL_S)
        except queue.Empty:
            if dead:
                raise EnvironmentFailure(
                    f"a worker was killed (exit code {dead[0].exitcode}), often because memory ran out; finished work "
                    "is kept. Run the same command again, with fewer GPUs or more memory."
                ) from None
            continue
        if kind == "error":
            raise result
        return task, result


def _worker(
    build: Callable[..., Work], device: str, arguments: Sequence[Any], tasks: Sequence[Task], results: Any
) -> None:
    try:
        work = build(device, *arguments)
        for task in tasks:
            results.put(("result", task, work(task)))
    except UserError as error:
        results.put(("error", None, error))
    except Exception as error:
        text = f"a worker on {device} failed: {type(error).__name__}: {error}\n{traceback.format_exc()}"
        results.put(("error", None, EnvironmentFailure(text)))
