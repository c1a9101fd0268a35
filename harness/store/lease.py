"""Leases: who is working on something right now, without locks, on local and shared file systems.

A lease on NAME is the highest-numbered file of the folder NAME: `1.json`, `2.json`, ... Whoever creates number n + 1
holds it, and creating is exclusive (a hard link to a finished file), so two processes can never both win. Files are
never deleted, neither to take a dead holder's lease over nor to give one back: if a number could be used twice, a
process that looked, paused and then created its file could win too. The holder touches its file every few seconds. A
holder on this machine is dead when its process is gone, one elsewhere when its file has not been touched for a minute.

Why not the package `filelock`: its `FileLock` is the operating system's lock, which many shared network file systems do
not have or do not honour between machines. Its `SoftFileLease` expires as this lease does, but takes over by removing
its one marker file and making it again, which leaves a moment for two winners; growing numbers do not.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from harness.contract.errors import EnvironmentFailure, UserError
from harness.contract.files import read_json, write_json

HEARTBEAT_S = 5.0
"""Seconds between two touches of a held lease."""
SILENT_S = 60.0
"""A holder on another machine is dead after this many seconds without a touch."""
_POLL_S = 0.2


@dataclass(frozen=True, kw_only=True)
class Holder:
    """The process behind a lease."""

    host: str
    boot: str
    """Changes when the machine restarts, and so makes its old process ids meaningless."""
    pid: int
    started: str
    """When the process started, in the kernel's own unit: a reused process id does not look alive."""
    token: str
    """Unique to this lease."""
    released: bool = False

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


class Lease:
    """A held lease. `lost` is set when another process took it over (this machine was asleep, perhaps): stop then."""

    def __init__(self, path: Path, holder: Holder) -> None:
        self.path = path
        self.holder = holder
        self.lost = threading.Event()
        self._stop = threading.Event()
        self._heart = threading.Thread(target=self._beat, name=f"lease {path.parent.name}", daemon=True)
        self._heart.start()

    def check(self) -> None:
        """Raise EnvironmentFailure when the lease is no longer ours."""
        if _latest(self.path.parent) != self.path:
            self.lost.set()
            raise EnvironmentFailure(
                f"{self.path.parent}: another run took this step over, because this one had been silent for "
                f"{SILENT_S:.0f} s; run the same command again to join it."
            )

    def release(self) -> None:
        """Give the lease back."""
        self._stop.set()
        self._heart.join()
        write_json(self.path, {**asdict(self.holder), "released": True})

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_S):
            try:
                os.utime(self.path)
                if _latest(self.path.parent) != self.path:
                    self.lost.set()
            except OSError:  # the folder was removed or the file system is gone: not ours any more
                self.lost.set()


@contextmanager
def held(
    folder: Path,
    *,
    on_wait: Callable[[Holder], None] | None = None,
    give_up: Callable[[], bool] = lambda: False,
) -> Iterator[Lease]:
    """Hold the lease `folder`, waiting while a living process has it.

    Args:
        folder: names the lease; made when missing.
        on_wait: called once, with the holder, when another process holds the lease.
        give_up: asked while waiting; true raises UserError.
    """
    lease = _acquire(folder, on_wait or (lambda holder: None), give_up)
    try:
        yield lease
    finally:
        lease.release()


def current_holder(folder: Path) -> Holder | None:
    """Who holds the lease `folder` and is alive; None when nobody does."""
    latest = _latest(folder)
    if latest is None:
        return None
    holder = _read(latest)
    return holder if holder is not None and _is_alive(holder, latest) else None


def _acquire(folder: Path, on_wait: Callable[[Holder], None], give_up: Callable[[], bool]) -> Lease:
    told = False
    while True:
        latest = _latest(folder)
        holder = _read(latest) if latest else None
        if latest is None or holder is None or not _is_alive(holder, latest):
            mine = _try_create(folder, _number(latest) + 1)
            if mine:
                return mine
            continue
        if not told:
            on_wait(holder)
            told = True
        if give_up():
            raise UserError(f"{folder}: stopped waiting for {holder}.")
        time.sleep(_POLL_S)


def _try_create(folder: Path, number: int) -> Lease | None:
    folder.mkdir(parents=True, exist_ok=True)
    holder = Holder(
        host=socket.gethostname(),
        boot=_boot_id(),
        pid=os.getpid(),
        started=_start_time(os.getpid()),
        token=secrets.token_hex(8),
    )
    path = folder / f"{number}.json"
    temporary = folder / f".{holder.token}"
    try:
        write_json(temporary, asdict(holder))
        os.link(temporary, path)
    except FileExistsError:
        # A file server whose first reply was lost reports this for our own link, too.
        winner = _read(path)
        if winner is None or winner.token != holder.token:
            return None
    except OSError as error:
        raise EnvironmentFailure(
            f"{folder}: the file system has no hard links ({error.strerror}), which leases need; "
            "choose a folder on another file system with --runs or HARNESS_HOME."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
    return Lease(path, holder)


def _latest(folder: Path) -> Path | None:
    try:
        paths = list(folder.iterdir())
    except FileNotFoundError:
        return None
    return max((path for path in paths if path.suffix == ".json" and path.stem.isdigit()), key=_number, default=None)


def _number(path: Path | None) -> int:
    return int(path.stem) if path else 0


def _read(path: Path) -> Holder | None:
    with suppress(UserError, TypeError):  # gone, or written by another version: no holder to wait for
        return Holder(**read_json(path))
    return None


def _is_alive(holder: Holder, path: Path) -> bool:
    if holder.released:
        return False
    if (holder.host, holder.boot) == (socket.gethostname(), _boot_id()):
        return _start_time(holder.pid) == holder.started
    try:
        return _clock_of(path.parent) - path.stat().st_mtime < SILENT_S
    except FileNotFoundError:
        return False


def _clock_of(folder: Path) -> float:
    """The time by the clock that stamps files in `folder`: on a shared file system, the server's."""
    probe = folder / f".{secrets.token_hex(8)}"
    probe.touch()
    try:
        return probe.stat().st_mtime
    finally:
        probe.unlink()


def _boot_id() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        # Containers share the boot id, and may share the host's name, but not each other's process ids.
        return f"{boot} {os.stat('/proc/self/ns/pid').st_ino}"  # noqa: PTH116 - a magic link, not a path
    except OSError:
        return ""


def _start_time(pid: int) -> str:
    """Start time of a living process, "" for none. Without /proc: only whether it lives."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return _lives_without_proc(pid)
    # The second field is the command in parentheses and may hold spaces; the state is the first after it.
    fields = stat.rpartition(")")[2].split()
    return "" if fields[0] == "Z" else fields[19]


def _lives_without_proc(pid: int) -> str:
    if Path("/proc/self/stat").exists():
        return ""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        pass
    return "alive"
