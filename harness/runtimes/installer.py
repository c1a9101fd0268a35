"""Runs uv, which resolves locks and fills environments."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

import uv

from harness.contract.errors import EnvironmentFailure
from harness.contract.files import open_log
from harness.planning.steps import Environment

_LOG_TAIL = 15


def run_uv(arguments: Sequence[str], log: Path, environment: Environment) -> None:
    """Run uv with its output in a log.

    Raises EnvironmentFailure with the end of the log when it fails.
    """
    argv = [uv.find_uv_bin(), *arguments]
    with open_log(log, "w" if arguments[0] == "venv" else "a") as handle:
        handle.write(f"$ {shlex.join(argv)}\n")
        handle.flush()
        # uv follows the folder's own project settings, which are not the scorer's.
        outcome = subprocess.run(argv, stdout=handle, stderr=subprocess.STDOUT, cwd=log.parent, check=False)
    if outcome.returncode:
        tail = "\n".join(f"    {line}" for line in log.read_text(encoding="utf-8").splitlines()[-_LOG_TAIL:])
        raise EnvironmentFailure(
            f"The environment '{environment.name}' could not be built from {environment.lock or 'its lock'}:\n{tail}\n"
            f"  Whole log: {log}\n"
            "  Without internet, copy uv's cache from a machine that built it, and set UV_CACHE_DIR and UV_OFFLINE=1."
        )
