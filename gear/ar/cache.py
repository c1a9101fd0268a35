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

    def append(self, slots: slice | Tensor, keys: Tensor, values: Tensor, length: int) -> tuple[Tensor, Tensor]:
        """Store `keys` and `values` (B, kv heads, q, h) at `slots`, q of them; returns the first `length` slots.

        slots: a slice, or int64 (q,) on the device, so that a recorded step can be replayed for other slots.
        """
        for stored, new in ((self.keys, keys), (self.values, values)):
            if isinstance(slots, slice):
                stored[:, :, slots] = new
            else:
                stored.index_copy_(2, slots, new.to(stored.dtype))
        return self.keys[:, :, :length], self.values[:, :, :length]


@dataclass(frozen=True, kw_only=True)
class Prefix:
    """The state after the conditioning slots of one image: their keys and values, and the input of the output head."""

    keys: Tensor
    """(layers, kv heads, T, h)."""
    values: Tensor
    normed: Tensor
    """(D,): the final norm's output, from which the head makes the logits of image token 0."""
    visible: Tensor | None = None
    """(T,) bool: conditioning slots that image tokens may see; None = all."""

    @property
    def num_bytes(self) -> int:
        """Its memory, in bytes."""
        return sum(part.numel() * part.element_size() for part in (self.keys, self.values, self.normed))


@dataclass
class KVCache:
    """Rotated keys, and values, of all blocks for a fixed batch.

    Slots are filled from the front: the conditioning slots by `prefill` or `load`, then one per `decode`. Nothing
    beyond the filled part is ever read, so a cache serves any number of batches of its size without being cleared.
    """

    keys: Tensor
    """(layers, B, kv heads, slots, h)."""
    values: Tensor
    visible: Tensor | None = None
    """Slots that later tokens may see, bool (B, 1, 1, slots); None = all."""

    @staticmethod
    def allocate(
        config: TrunkConfig, batch_size: int, length: int, *, device: torch.device, dtype: torch.dtype
    ) -> KVCache:
        """Room for `length` slots (conditioning included) of `batch_size` rows."""
        slots = _ALIGNMENT * math.ceil(length / _ALIGNMENT)
        shape = (config.n_layer, batch_size, config.num_kv_heads, slots, config.head_dim)
        return KVCache(*(torch.zeros(shape, device=device, dtype=dtype) for _ in range(2)))

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

    def first(self, rows: int) -> KVCache:
        """The first `rows` rows, sharing memory: what decoding uses once guidance is switched off."""
        return KVCache(
            self.keys[:, :rows], self.values[:, :rows], None if self.visible is None else self.visible[:rows]
        )

    def prefix(self, row: int, num_cond: int, normed: Tensor) -> Prefix:
        """A copy of what the conditioning slots of a row hold; `normed` (D,) belongs to the last of them."""
        visible = None if self.visible is None else self.visible[row, 0, 0, :num_cond].clone()
        kept = (part[:, row, :, :num_cond].clone() for part in (self.keys, self.values))
        return Prefix(keys=next(kept), values=next(kept), normed=normed, visible=visible)

    def load(self, row: int, prefix: Prefix) -> None:
        """Fill the conditioning slots of a row."""
        num_cond = prefix.keys.shape[2]
        self.keys[:, row, :, :num_cond] = prefix.keys
        self.values[:, row, :, :num_cond] = prefix.values
        if prefix.visible is not None:
            if self.visible is None:
                shape = (self.batch_size, 1, 1, self.length)
                self.visible = torch.ones(shape, dtype=torch.bool, device=self.keys.device)
            self.visible[row, 0, 0, :num_cond] = prefix.visible
        elif self.visible is not None:
            self.visible[row] = True
