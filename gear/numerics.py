"""Choices of precision that several modules share."""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_float32(tensor: Tensor) -> Tensor:
    """The tensor in float32, or as it is when it is wider (float64 is how the conformance cases are judged)."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
