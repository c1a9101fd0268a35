"""A background thread: while the AR model draws the next tile, the last one is decoded, packed and written."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any


class BackgroundWorker:
    """Calls `work` on every item put into it, in order, in its own thread. At most `depth` items wait.

    An error in the thread is raised by the next `put`, or at the end of the `with` block.
    """

    def __init__(self, work: Callable[..., None], depth: int) -> None:
        self._work, self._depth = work, depth
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="decode")
        self._waiting: deque[Future[None]] = deque()

    def put(self, *item: Any) -> None:
        """Hand an item over; blocks while `depth` items are waiting."""
        while len(self._waiting) >= self._depth:
            self._waiting.popleft().result()
        self._waiting.append(self._pool.submit(self._work, *item))

    def __enter__(self) -> BackgroundWorker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            while error is None and self._waiting:
                self._waiting.popleft().result()
        finally:
            self._pool.shutdown(cancel_futures=True)
