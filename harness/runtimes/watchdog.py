"""Ends the steps of a harness that was killed: a small process beside it, which sees the pipe between the two close.

The harness says when a step begins and ends, one JSON line each. Whatever is under way when the pipe closes has lost
its harness: `kill -9`, or the kernel short of memory. The kernel's parent-death signal would be sent when the *thread*
that started a process ends, would reach no grandchildren, and no containers.

This file imports nothing of the harness, so that the process is there at once and needs little memory.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

WORK_VARIABLE = "HARNESS_WORK"
"""In the environment of every process of a step: its work folder, which identifies what a kill left behind."""
OWNER_VARIABLE = "HARNESS_OWNER"
"""The same for the harness that started it: the next one may have begun in the same folder already."""
WORK_LABEL = "harness.work"
OWNER_LABEL = "harness.owner"
"""The same, as labels of containers."""
OWNER = secrets.token_hex(8)
"""This harness."""

_POLL_S = 0.1
_SWEEPS = 20


def end_leftovers(work: Path | str, owner: str | None = None) -> int:
    """Kill the processes of an attempt in `work` whose harness was killed; returns how many there were.

    They are known by their environment. Without /proc none are found.

    Args:
        work: the folder of the attempt.
        owner: only those that this harness started.
    """
    markers = {f"{WORK_VARIABLE}={work}".encode()} | ({f"{OWNER_VARIABLE}={owner}".encode()} if owner else set())
    killed = 0
    for _ in range(_SWEEPS):  # one may just be starting another
        found = [pid for pid in _processes(markers) if pid != os.getpid()]
        for pid in found:
            with suppress(OSError):  # ended in the meantime
                os.kill(pid, signal.SIGKILL)
        killed += len(found)
        if not found:
            break
        time.sleep(_POLL_S)
    return killed


def _processes(markers: set[bytes]) -> Iterator[int]:
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # ended in the meantime, or another user's
            if markers.issubset((folder / "environ").read_bytes().split(b"\0")):
                yield int(folder.name)


def remove_podman_containers(labels: Mapping[str, str], *, timeout_s: float | None = None) -> None:
    """Remove Podman's containers that have all the labels, running or not.

    Raises:
        subprocess.SubprocessError: Podman failed, or did not answer in time.
        OSError: there is no Podman.
    """
    filters = [word for name, value in labels.items() for word in ("--filter", f"label={name}={value}")]
    found = _podman("ps", "--all", "--quiet", "--no-trunc", *filters, timeout_s=timeout_s).split()
    if found:
        _podman("rm", "--force", "--ignore", "--time", "0", "--volumes", *found, timeout_s=timeout_s)


def _podman(*words: str, timeout_s: float | None) -> str:
    done = subprocess.run(["podman", *words], check=True, capture_output=True, text=True, timeout=timeout_s)
    return done.stdout


def _remove_docker_containers(labels: Mapping[str, str]) -> None:
    import docker  # only here: a step without containers needs no engine

    words = [f"{name}={value}" for name, value in labels.items()]
    for container in docker.from_env().containers.list(all=True, filters={"label": words}):
        with suppress(Exception):  # removed in the meantime; the others still have to be
            container.remove(force=True, v=True)


def _end(work: str, owner: str, engine: str | None) -> None:
    if engine is None:
        end_leftovers(work, owner)
    else:
        remove = remove_podman_containers if engine == "podman" else _remove_docker_containers
        remove({WORK_LABEL: work, OWNER_LABEL: owner})


# --- the harness's side ----------------------------------------------------------------------------------------------


class _Watchdog:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._under_way: list[str] = []
        self._process: subprocess.Popen[str] | None = None

    def begin(self, line: str) -> None:
        with self._lock:
            self._under_way.append(line)
            if self._process is None or self._process.poll() is not None:
                self._process = _start()
                self._tell("+", self._under_way)
            else:
                self._tell("+", [line])

    def end(self, line: str) -> None:
        with self._lock:
            self._under_way.remove(line)
            self._tell("-", [line])

    def _tell(self, sign: str, lines: Iterable[str]) -> None:
        assert self._process is not None and self._process.stdin is not None
        with suppress(OSError):  # somebody ended it: the next step starts another
            self._process.stdin.write("".join(f"{sign}{line}\n" for line in lines))
            self._process.stdin.flush()


def _start() -> subprocess.Popen[str]:
    """In a session of its own, which no signal to the harness's group reaches."""
    return subprocess.Popen(
        [sys.executable, "-I", __file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        text=True,
        encoding="ascii",
        start_new_session=True,
    )


_WATCHDOG = _Watchdog()


@contextmanager
def watched(work: Path, *, engine: str | None = None) -> Iterator[None]:
    """While this lasts, the death of this process ends what carries its marks: processes, or containers of an engine,
    "docker" or "podman"."""
    line = json.dumps({"work": str(work), "owner": OWNER, "engine": engine})
    _WATCHDOG.begin(line)
    try:
        yield
    finally:
        _WATCHDOG.end(line)


# --- the other side --------------------------------------------------------------------------------------------------


def main() -> None:
    """Read what begins and ends until the pipe closes; then end what is left."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # it ends with its harness, never before
        signal.signal(number, signal.SIG_IGN)
    under_way: list[str] = []
    for line in sys.stdin:
        (under_way.append if line[0] == "+" else under_way.remove)(line[1:])
    for row in map(json.loads, under_way):
        with suppress(Exception):  # an engine that does not answer: the next step still has to be ended
            _end(**row)


if __name__ == "__main__":
    main()
