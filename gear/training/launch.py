"""torchrun with the exit status of what it ran: `python -m gear.training.launch [torchrun's options] train e2e ...`.

torchrun itself ends with status 1 whatever happened to its processes, stops 30 seconds after a signal and dies from
SIGUSR1. Batch systems need to tell a run that a signal stopped after saving (75: queue it again) from one that failed.
Here SIGTERM, SIGINT and SIGUSR1 go to the processes, which save and end by themselves; this command ends with their
status.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import FrameType

_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
_COMMANDS = ("train",)


def main(arguments: list[str]) -> int:
    """Run `python -m gear ARGUMENTS` in the processes that torchrun's options ask for; returns the exit status."""
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import get_args_parser, run

    options, command = _split(arguments)
    parsed = get_args_parser().parse_args([*options, "-m", "gear", *command])
    # The agent leaves these signals alone; the handlers below are in place before it starts.
    parsed.signals_to_handle = "SIGHUP,SIGQUIT"
    for number in _FORWARDED:
        signal.signal(number, _forward)
    try:
        run(parsed)
    except ChildFailedError as error:
        return _status([failure.exitcode for failure in error.failures.values()])
    return 0


def _split(arguments: list[str]) -> tuple[list[str], list[str]]:
    """torchrun's options, and the gear command after them."""
    for position, word in enumerate(arguments):
        if word in _COMMANDS:
            return arguments[:position], arguments[position:]
    sys.exit("usage: python -m gear.training.launch [torchrun options] train STAGE ... (see `gear train --help`)")


def _forward(number: int, frame: FrameType | None) -> None:
    """Ask the processes to save and stop. Always by SIGTERM: a terminal's SIGINT has reached them already."""
    for pid in _children():
        os.kill(pid, signal.SIGTERM)


def _children() -> list[int]:
    """Processes started by this one (Linux)."""
    tasks = Path("/proc/self/task").iterdir()
    return [int(word) for task in tasks for word in (task / "children").read_text().split()]


def _status(codes: list[int]) -> int:
    """The status of processes that ended differently: an exit status comes before a signal that ended another one."""
    exited = [code for code in codes if code > 0]
    return exited[0] if exited else 128 - codes[0]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
