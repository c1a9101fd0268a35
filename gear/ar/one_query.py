"""Attention of one query per row over a cache: what a decoding step does in every block.

A step reads all keys and values once and computes little, so memory bandwidth limits it. The usual kernels are made for
many queries: on a CPU they read the values at half of the available bandwidth. A weighted sum of table rows is an
embedding bag, whose kernel streams them: at 128 slots it is twice as fast, and attention as a whole a quarter faster.

Shapes: B rows, H query heads, Hkv key/value heads, n filled slots, h head width.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from gear.ar.cache import LayerCache


def attend_one(q: Tensor, cache: LayerCache, length: int, mask: Tensor | None = None) -> Tensor:
    """softmax(q k / sqrt(h)) v over the first `length` slots: queries (B, H, 1, h) -> (B, H, 1, h).

    mask: bool, True = may attend, broadcastable to (B, H, 1, length); None = all. Every query may attend to some slot.
    A row's result does not depend on the other rows.
    """
    rows, heads, _, width = q.shape
    kv_heads, slots = cache.keys.shape[1:3]
    if q.device.type != "cpu" or q.dtype != torch.float32:
        keys, values = (part[:, :, :length] for part in (cache.keys, cache.values))
        return F.scaled_dot_product_attention(q, keys, values, attn_mask=mask, enable_gqa=heads != kv_heads)
    keys = cache.keys.flatten(0, 1)[:, :length]  # (B Hkv, n, h)
    sharing = (q * width**-0.5).view(rows * kv_heads, heads // kv_heads, width)  # the queries of each key head
    scores = torch.bmm(sharing, keys.transpose(1, 2)).view(rows, heads, 1, length)
    if mask is not None:
        scores.masked_fill_(~mask, -torch.inf)
    table = cache.values.view(-1, width)
    bags, starts = _bags(rows * heads, heads // kv_heads, slots, length)
    mixed, *_ = torch.embedding_bag(table, bags, starts, mode=0, per_sample_weights=scores.softmax(dim=-1).view(-1))
    return mixed.view(rows, heads, 1, width)


@lru_cache(maxsize=2)  # all blocks of a step ask for the same
def _bags(count: int, sharing: int, slots: int, length: int) -> tuple[Tensor, Tensor]:
    """Which rows (count * length,) of a table of all value heads' slots go into each bag, and where bags start, int32.

    `sharing` neighbouring bags read the same value head.
    """
    with torch.inference_mode(False):  # kept for later calls, which may be recorded for a backward pass
        bags, filled = (torch.arange(size, dtype=torch.int32, device="cpu") for size in (count, length))
        return (bags[:, None] // sharing * slots + filled).view(-1), bags * length
