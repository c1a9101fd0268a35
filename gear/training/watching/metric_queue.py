"""Move the figures of every update from the device to the log without waiting for the device.

Each update's figures become one small vector, averaged over processes and copied to the host in the background. It is
read one update later, when the copy has long finished. So every update is checked for values that are not finite, and
all processes find them, or a request to stop, in the same update.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from gear.training.processes.distributed import mean_over_processes


@dataclass(frozen=True, kw_only=True)
class UpdateMetrics:
    """One update as read on the host: means over micro-batches and processes."""

    step: int
    """From 1."""
    values: dict[str, float]
    ids: list[int]
    """The samples that this process worked on."""
    logged: bool
    """Whether the row belongs in the log."""
    stop: bool
    """Some process was asked to stop."""

    @property
    def not_finite(self) -> dict[str, float]:
        return {name: value for name, value in self.values.items() if not math.isfinite(value)}


@dataclass(frozen=True, kw_only=True)
class _Pending:
    step: int
    names: list[str]
    numbers: dict[str, float]
    figures: Tensor
    arrived: torch.cuda.Event | None
    ids: list[int]
    logged: bool

    def row(self) -> UpdateMetrics:
        if self.arrived is not None:
            self.arrived.synchronize()
        *values, stop = self.figures.tolist()
        return UpdateMetrics(
            step=self.step,
            values={**dict(zip(self.names, values, strict=True)), **self.numbers},
            ids=self.ids,
            logged=self.logged,
            stop=stop > 0,
        )


class MetricQueue:
    """A queue of updates whose figures are being copied to the host."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._pending: deque[_Pending] = deque()

    def put(
        self, step: int, figures: Mapping[str, Tensor | float], ids: list[int], *, logged: bool, stop: bool
    ) -> None:
        """Start copying the figures of update `step` to the host; called by all processes."""
        tensors = {name: value for name, value in figures.items() if isinstance(value, Tensor)}
        flag = torch.full((), float(stop), dtype=torch.float64, device=self.device)
        scalars = [value.detach().to(self.device, torch.float64).reshape(()) for value in tensors.values()]
        vector = mean_over_processes(torch.stack([*scalars, flag]))
        host, arrived = _to_host(vector)
        self._pending.append(
            _Pending(
                step=step,
                names=list(tensors),
                numbers={name: value for name, value in figures.items() if not isinstance(value, Tensor)},
                figures=host,
                arrived=arrived,
                ids=ids,
                logged=logged,
            )
        )

    def rows(self, *, keep: int = 0) -> list[UpdateMetrics]:
        """The oldest updates, all but the last `keep`; with 1 the device is always one update ahead of the reader."""
        return [self._pending.popleft().row() for _ in range(len(self._pending) - keep)]


def _to_host(vector: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
    """The values in host memory, and the event after which they are valid."""
    if vector.device.type != "cuda":
        return vector, None
    host = torch.empty(vector.shape, dtype=vector.dtype, pin_memory=True)
    host.copy_(vector, non_blocking=True)
    arrived = torch.cuda.Event()
    arrived.record()
    return host, arrived


def mean_metrics(parts: list[dict[str, Tensor | float]]) -> dict[str, Tensor | float]:
    """The figures of an update from those of its micro-batches: the mean if all have one, else the last value."""
    last = parts[-1]
    if len(parts) == 1:
        return last

    def mean(name: str) -> Tensor | float:
        values = [part[name] for part in parts if name in part]
        tensors = [value for value in values if isinstance(value, Tensor)]
        return torch.stack(tensors).mean(0) if len(tensors) == len(parts) else last[name]

    return {name: mean(name) for name in last}
