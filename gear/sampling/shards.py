"""Which shards this process draws, when several share a request set.

Processes take shards as they get to them, so a fast one draws more. Nobody is waited for: what another process took and
does not bring is drawn again by whoever has nothing else to do, and as the images are the same whoever draws them, it
does not matter who is first.
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
    """One of the processes that sample together."""

    rank: int = 0
    num_ranks: int = 1
    parent: int | None = None
    """Process id of whoever started the others: when it is gone, so is the reason to go on."""

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
        """Raises EnvironmentFailure when the process that started this one is gone."""
        if self.parent is not None and os.getppid() != self.parent:
            raise EnvironmentFailure("the process that started this one is gone; run the same command again to go on.")


def shards_to_draw(writer: SampleSetWriter, process: SamplingProcess) -> Iterator[Shard]:
    """First what nobody has taken, then what others took and have not brought in good time; ends when all is there
    but what this process itself was given."""
    own: set[int] = set()
    started = time.monotonic()
    for shard in writer.missing():
        process.check_parent()
        if not writer.is_written(shard) and writer.claim(shard):
            own.add(shard.index)
            yield shard
    patience_s = 2 * (time.monotonic() - started) / max(1, len(own)) if process.num_ranks > 1 else 0.0
    while left := [shard for shard in writer.missing() if shard.index not in own]:
        # Each idle process starts at another place of what is left.
        shard = left[process.rank * len(left) // process.num_ranks]
        if not _comes(writer, shard, patience_s, process):
            own.add(shard.index)
            yield shard


def _comes(writer: SampleSetWriter, shard: Shard, patience_s: float, process: SamplingProcess) -> bool:
    """Wait a while for somebody else's shard."""
    deadline = time.monotonic() + patience_s
    while not writer.is_written(shard):
        process.check_parent()
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL_S)
    return True
