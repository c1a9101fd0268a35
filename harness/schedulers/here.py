"""Runs steps on this machine, side by side as GPUs, memory and cores allow."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence, Set
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.planning.steps import Resources, Step

_WAKE_S = 0.5


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What steps can be given."""

    gpus: tuple[str, ...] = ()
    """Ids as CUDA_VISIBLE_DEVICES takes them."""
    memory_gb: float
    cpus: int

    @classmethod
    def detect(cls) -> Machine:
        """This machine, within the limits that a container or a batch system sets."""
        allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        return cls(gpus=_find_gpus(), memory_gb=_find_memory_gb(), cpus=allowed or 1)


class Here:
    """This machine: its GPUs, memory and cores are lent to steps."""

    name = "here"

    def __init__(self, machine: Machine | None = None) -> None:
        self.machine = machine or Machine.detect()
        self._gpus = list(self.machine.gpus)
        self._memory_gb = self.machine.memory_gb
        self._cpus = self.machine.cpus
        self._changed = threading.Condition()

    @property
    def gpus(self) -> tuple[str, ...]:
        """Ids of the GPUs."""
        return self.machine.gpus

    def describe(self) -> dict[str, Any]:
        """Host, platform, cores, memory, GPUs, user."""
        return {
            "host": platform.node(),
            "platform": platform.platform(),
            "cpus": self.machine.cpus,
            "memory_gb": round(self.machine.memory_gb, 1),
            "gpus": len(self.machine.gpus),
            "user": os.environ.get("USER", ""),
            "executable": sys.executable,
        }

    def run(self, steps: Sequence[Step], work: Callable[[Step], bool], under_way: Set[str] = frozenset()) -> None:
        """Call `work` for every step, as soon as all it needs has been done; it asks for resources by `take`.

        An exception in `work` is raised here, after the steps that are running have ended.
        """
        waiting = list(steps)
        done: set[str] = set()
        running: dict[Future[bool], Step] = {}
        with ThreadPoolExecutor(max_workers=max(len(waiting), 1), thread_name_prefix="step") as pool:
            while True:
                going = done | {step.name for step in running.values() if step.name in under_way}
                ready = [step for step in waiting if done.issuperset(step.needs) and going.issuperset(step.after)]
                for step in ready:
                    waiting.remove(step)
                    running[pool.submit(work, step)] = step
                if not running:
                    return
                # With a timeout: a signal that arrives just as the main thread begins to wait is only handled when it
                # wakes, and nothing wakes it for a running step.
                finished, _ = wait(running, timeout=_WAKE_S, return_when=FIRST_COMPLETED)
                for future in finished:
                    step = running.pop(future)
                    if future.result():
                        done.add(step.name)

    @contextmanager
    def take(self, wanted: Resources, give_up: Callable[[], bool] = lambda: False) -> Iterator[tuple[str, ...]]:
        """Wait until `wanted` fits, hold it, and yield the ids of the GPUs.

        A step that is larger than the machine waits until it is alone and then runs: the estimate may be generous.
        """
        gpus = min(wanted.gpus, len(self.machine.gpus))
        memory_gb = min(wanted.memory_gb, self.machine.memory_gb)
        cpus = min(wanted.cpus, self.machine.cpus)
        with self._changed:
            self._changed.wait_for(lambda: give_up() or self._fits(gpus, memory_gb, cpus))
            granted = tuple(self._gpus.pop(0) for _ in range(min(gpus, len(self._gpus))))
            self._memory_gb -= memory_gb
            self._cpus -= cpus
        try:
            yield granted
        finally:
            with self._changed:
                self._gpus = sorted([*self._gpus, *granted], key=self.machine.gpus.index)
                self._memory_gb += memory_gb
                self._cpus += cpus
                self._changed.notify_all()

    def wake(self) -> None:
        """Let every waiting `take` call its `give_up` again."""
        with self._changed:
            self._changed.notify_all()

    def _fits(self, gpus: int, memory_gb: float, cpus: int) -> bool:
        return gpus <= len(self._gpus) and memory_gb <= self._memory_gb + 1e-9 and cpus <= self._cpus


def _find_gpus() -> tuple[str, ...]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return tuple(name.strip() for name in visible.split(",") if name.strip() and name.strip() != "-1")
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ()
    query = [tool, "--query-gpu=index", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=30, check=False)
    except subprocess.TimeoutExpired:  # a driver that does not answer offers no usable GPUs
        return ()
    return tuple(answer.stdout.split()) if answer.returncode == 0 else ()


def _find_memory_gb() -> float:
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        path = Path("/sys/fs/cgroup") / name
        text = path.read_text().strip() if path.is_file() else ""
        limits += [int(text)] if text.isdigit() else []
    return min(limits) / 2**30
