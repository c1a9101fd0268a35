"""How fast a run is: images/s, tokens/s, share of the time spent waiting for data, MFU, memory. Nothing here waits for
the device; the figures lag behind it by at most one update."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from gear.training.processes.distributed import world

PEAK_TFLOPS = {"H100": 989.0, "H200": 989.0, "A100": 312.0, "L40S": 362.0, "RTX 4090": 165.0, "V100": 125.0}
"""Part of a GPU's name -> dense bfloat16 (V100: float16) peak from its data sheet, in TFLOP/s."""


def peak_tflops(device: torch.device, configured: float = 0.0) -> float | None:
    """The peak of one device: `configured` if given, else by its name; None if it is unknown."""
    if configured > 0:
        return configured
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in PEAK_TFLOPS.items() if part in name), None)


class Throughput:
    """Counts images and time between two calls of `look`."""

    def __init__(
        self, device: torch.device, *, tokens_per_image: int, flops_per_image: float, peak_tflops: float | None
    ) -> None:
        self.device, self.tokens_per_image = device, tokens_per_image
        self.flops_per_image, self.peak_tflops = flops_per_image, peak_tflops
        self._start()

    def _start(self) -> None:
        self._since = time.perf_counter()
        self._images = 0
        self._waited_s = self._away_s = 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """The time in this block counts as waiting for data."""
        started = time.perf_counter()
        yield
        self._waited_s += time.perf_counter() - started

    @contextmanager
    def away(self) -> Iterator[None]:
        """The time in this block does not count as training: a checkpoint, pictures, a monitor."""
        started = time.perf_counter()
        yield
        self._away_s += time.perf_counter() - started

    def advance(self, images: int) -> None:
        """Count the images of one update, over all processes."""
        self._images += images

    def look(self) -> dict[str, float]:
        """The figures since the last call."""
        elapsed = max(time.perf_counter() - self._since - self._away_s, 1e-9)
        images_per_s = self._images / elapsed
        figures = {
            "images_per_s": images_per_s,
            "tokens_per_s": images_per_s * self.tokens_per_image,
            "data_wait_share": min(1.0, self._waited_s / elapsed),
            "memory_gib": memory_gib(self.device),
        }
        if self.peak_tflops is not None:
            figures["mfu"] = images_per_s * self.flops_per_image / (self.peak_tflops * 1e12 * world().size)
        self._start()
        return figures


def memory_gib(device: torch.device) -> float:
    """Peak memory so far: what PyTorch allocated on a GPU, the resident set of the process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
