"""Key/value cache for token-by-token decoding: buffers allocated once, attention over the filled part only."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gear.ar.config import TrunkConfig

_ALIGNMENT = 8
"""Slots are rounded up to this, which keeps rows aligned for the attention kernels (and equals the reference)."""


@dataclass(frozen=True)
class LayerCache:
    """One block's share of the cache: views (B, kv heads, slots, h)."""

    keys: Tensor
    values: Tensor

    def append(self, position: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store `keys` and `values` (B, kv heads, q, h) from slot `position` on; returns all slots filled so far."""
        end = position + keys.shape[2]
        self.keys[:, :, position:end] = keys
        self.values[:, :, position:end] = values
        return self.keys[:, :, :end], self.values[:, :, :end]


class KVCache:
    """Rotated keys, and values, of all blocks for a fixed batch.

    Slots are filled from the front: the conditioning slots by `prefill`, then one per `decode`. Nothing beyond the
    filled part is ever read, so a cache serves any number of batches of its size without being cleared.
    """

    def __init__(
        self, config: TrunkConfig, batch_size: int, length: int, *, device: torch.device, dtype: torch.dtype
    ) -> None:
        """Room for `length` slots (conditioning included) of `batch_size` rows."""
        slots = _ALIGNMENT * math.ceil(length / _ALIGNMENT)
        shape = (config.n_layer, batch_size, config.num_kv_heads, slots, config.head_dim)
        self.keys = torch.zeros(shape, device=device, dtype=dtype)
        self.values = torch.zeros(shape, device=device, dtype=dtype)
        self.visible: Tensor | None = None
        """Slots that later tokens may see, bool (B, 1, 1, slots); None = all. Set by `prefill`."""

    @property
    def batch_size(self) -> int:
        return self.keys.shape[1]

    @property
    def length(self) -> int:
        """Number of slots."""
        return self.keys.shape[3]

    def layer(self, index: int) -> LayerCache:
        """The part of one block (0-based)."""
        return LayerCache(self.keys[index], self.values[index])
