"""What a scorer with PyTorch may run on."""

from __future__ import annotations

from collections.abc import Sequence


def available_devices() -> list[str]:
    """Every GPU that the step was given, else the CPU."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return [f"cuda:{index}" for index in range(count)] or ["cpu"]


def describe_devices(devices: Sequence[str]) -> str:
    """Names of the GPUs, or "cpu"."""
    import torch

    return ", ".join(torch.cuda.get_device_name(name) if name.startswith("cuda") else name for name in devices)
