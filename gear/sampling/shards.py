"""Which shards this process draws, when several share a request set.

Processes take the next free shard whenever they finish one, so a fast one draws more. A slow or dead process does not
hold the others up: a shard that it took and does not finish is drawn again by an idle process. The images are the same
whichever process draws them, so it does not matter which finishes first.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass

from harness.contract.errors import EnvironmentFailure
from harness.contract.writer import SampleSetWriter, Shard

_POLL_S = 0.2


@dataclass(frozen=True, kw_only=True)
class SamplingProcess:
    """One of the processes that share a request set."""

    rank: int = 0
    num_ranks: int = 1
    parent: int | None = None
    """Process id of the process that started this one; when it is gone, this one stops."""

    @staticmethod
    def from_environment() -> SamplingProcess:
        """As torchrun, or the process that started this one, says."""
        parent = os.environ.get("GEAR_PARENT")
        return SamplingProcess(
            rank=int(os.environ.get("RANK", "0")),
            num_ranks=int(os.environ.get("WORLD_SIZE", "1")),
            parent=int(parent) if parent else None,
        )

    def check_parent(self) -> None:
        """Raises EnvironmentFailure when the process that started this one has ended."""
        if self.parent is not None and os.getppid() != self.parent:
            raise EnvironmentFailure(
                "the process that started this one has ended; run the same command again to resume."
            )


def shards_to_draw(writer: SampleSetWriter, process: SamplingProcess) -> Iterator[Shard]:
    """First the shards that no process has taken, then those that others took and did not finish in time. Ends when
    all shards are finished except those that this process was given."""
    own: set[int] = set()
    started = time.monotonic()
    for shard in writer.missing():
        process.check_parent()
        if not writer.is_written(shard) and writer.claim(shard):
            own.add(shard.index)
            yield shard
    patience_s = 2 * (time.monotonic() - started) / max(1, len(own)) if process.num_ranks > 1 else 0.0
    while left := [shard for shard in writer.missing() if shard.index not in own]:
        # Each idle process starts at a different one of the remaining shards.
        shard = left[process.rank * len(left) // process.num_ranks]
        if not _is_finished_in_time(writer, shard, patience_s, process):
            own.add(shard.index)
            yield shard


def _is_finished_in_time(writer: SampleSetWriter, shard: Shard, patience_s: float, process: SamplingProcess) -> bool:
    """Wait up to `patience_s` for another process to finish a shard; whether it did."""
    deadline = time.monotonic() + patience_s
    while not writer.is_written(shard):
        process.check_parent()
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL_S)
    return True
