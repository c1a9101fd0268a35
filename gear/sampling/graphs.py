"""CUDA graphs: the kernels of a step are captured once and then launched together. Needs a GPU; not used on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import torch
from torch import Tensor

_WARM_UPS = 3
"""Runs before recording, in which libraries choose their kernels and allocate their workspaces."""


class GraphCache:
    """Runs steps that change nothing but buffers at fixed addresses: one recording per key.

    `state`: the small buffers that hold a step's position; they are restored after the warm-up runs of a step.
    """

    def __init__(self, state: Sequence[Tensor]) -> None:
        self._state = state
        self._graphs: dict[Hashable, torch.cuda.CUDAGraph] = {}
        self._pool = torch.cuda.graph_pool_handle()

    def run(self, key: Hashable, step: Callable[[], None]) -> None:
        """Do what `step` does; `step` itself is called only when `key` is new."""
        if key not in self._graphs:
            self._graphs[key] = self._record(step)
        self._graphs[key].replay()

    def _record(self, step: Callable[[], None]) -> torch.cuda.CUDAGraph:
        before = [buffer.clone() for buffer in self._state]
        beside = torch.cuda.Stream()
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            for _ in range(_WARM_UPS):
                step()
                for buffer, value in zip(self._state, before, strict=True):
                    buffer.copy_(value)
        torch.cuda.current_stream().wait_stream(beside)
        graph = torch.cuda.CUDAGraph()
        # Another thread may be decoding pixels meanwhile, on its own stream.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            step()
        return graph
