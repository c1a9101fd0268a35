"""The number of processor cores available."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """Those that this process may use, where the system reports it: a container or a Slurm job has only some."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
