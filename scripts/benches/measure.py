"""Compare several implementations of the same thing: alternating runs, peak memory, one table."""

from __future__ import annotations

import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from rich.console import Console
from rich.table import Table

from scripts.benches.contract_files import peak_memory_mb


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Wall-clock seconds of one call."""

    fastest_s: float
    median_s: float


def side_by_side(
    forms: Mapping[str, Callable[[], Any]],
    *,
    repeats: int = 5,
    warmup: int = 1,
    synchronize: Callable[[], None] | None = None,
) -> dict[str, Timing]:
    """Time each form `repeats` times, alternating between them, so that other load on the machine affects all equally.

    synchronize: waits for the device, called before each reading of the clock (torch.cuda.synchronize).
    """
    wait = synchronize or (lambda: None)
    taken: dict[str, list[float]] = {name: [] for name in forms}
    for turn in range(warmup + repeats):
        for name, run in forms.items():
            wait()
            started = time.perf_counter()
            run()
            wait()
            if turn >= warmup:
                taken[name].append(time.perf_counter() - started)
    return {name: Timing(fastest_s=min(times), median_s=statistics.median(times)) for name, times in taken.items()}


@dataclass(frozen=True, kw_only=True)
class Peak:
    """Memory in MiB around one call; NaN where the system killed the process for lack of memory."""

    before: float
    """The most that `prepare()` needed."""
    most: float
    """The most at any time until the call returned."""

    @property
    def growth(self) -> float:
        """What the call needed in addition."""
        return max(0.0, self.most - self.before)


def peak_growth_mib(prepare: Callable[[], Callable[[], Any]]) -> float:
    """MiB by which one call raises the resident memory of a fresh process above what `prepare()` left there.

    `prepare` makes the inputs and returns the call. It must be importable (a module-level function or a partial of
    one), because it runs in its own process: the peak of a process never goes down again.
    """
    return peak_memory(prepare).growth


def peak_memory(prepare: Callable[[], Callable[[], Any]], device: str = "cpu") -> Peak:
    """The resident memory of a fresh process as in `peak_growth_mib`; for `cuda` the memory held by tensors there."""
    if device != "cpu":
        return _device_peak(prepare, device)
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_report_peak, args=(prepare, sender))
    with _returned_when_freed():
        process.start()
    sender.close()
    try:
        before, most = receiver.recv()
    except EOFError:
        before = most = float("nan")  # killed: there was not enough memory for this form
    process.join()
    return Peak(before=before, most=most)


@contextmanager
def _returned_when_freed() -> Iterator[None]:
    """A process started in the block gives freed tensors back to the system at once (glibc).

    By default freed blocks of up to 32 MiB stay with the process, so its resident memory depends on what it held
    before: the peaks of two forms would then depend on the allocator's history as much as on the forms.
    """
    name, before = "MALLOC_MMAP_THRESHOLD_", os.environ.get("MALLOC_MMAP_THRESHOLD_")
    os.environ[name] = before or str(256 << 10)
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]


def _report_peak(prepare: Callable[[], Callable[[], Any]], sender: Connection) -> None:
    call = prepare()
    before = _peak_mib()
    call()
    sender.send((before, _peak_mib()))


def _device_peak(prepare: Callable[[], Callable[[], Any]], device: str) -> Peak:
    import torch

    call = prepare()
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    call()
    torch.cuda.synchronize(device)
    return Peak(before=before / 2**20, most=torch.cuda.max_memory_allocated(device) / 2**20)


def _peak_mib() -> float:
    return peak_memory_mb() * 1e6 / 2**20


def print_comparison(
    title: str,
    timings: Mapping[str, Timing],
    *,
    baseline: str,
    memory_mib: Mapping[str, float] | None = None,
    rates: Mapping[str, str] | None = None,
) -> None:
    """One row per form: times, and memory and rates where they are given; and how they compare with `baseline`."""
    table = Table(title=title, title_justify="left")
    headings = ["form", "fastest", "median", "speed-up"]
    headings += ["peak memory", "of baseline"] if memory_mib else []
    headings += ["rate"] if rates else []
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "form" else "right")
    for name, timing in timings.items():
        row = [
            name,
            f"{timing.fastest_s * 1e3:,.1f} ms",
            f"{timing.median_s * 1e3:,.1f} ms",
            f"{timings[baseline].median_s / timing.median_s:.2f} x",
        ]
        if memory_mib:
            row += [f"{memory_mib[name]:,.0f} MiB", _share(memory_mib[name], memory_mib[baseline])]
        if rates:
            row.append(rates[name])
        table.add_row(*row)
    Console().print(table)


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.0%}" if whole else ""
