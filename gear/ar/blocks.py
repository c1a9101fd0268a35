"""The transformer block of the AR models: RMSNorm, rotary self-attention, SwiGLU; every linear layer is bias-free.

Shapes: B batch, S slots of this pass (conditioning and image tokens), D width, H heads, h = D / H.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gear.ar.cache import LayerCache
from gear.ar.config import TrunkConfig
from gear.ar.gated import gated_linear
from gear.ar.one_query import attend_one
from gear.ar.rope import rotate


@dataclass(frozen=True, kw_only=True)
class Pass:
    """What all blocks share in one pass over S consecutive slots."""

    rotary: Tensor
    """(S, h/2, 2): rows of the rotary table for these slots."""
    slots: slice | Tensor | None = None
    """Which slots these are, a slice or (S,) int64; needed with a cache."""
    length: int = 0
    """With a cache: how many of its slots, from the front, are attended to."""
    num_cond: int = 0
    """How many of these slots, from the front, hold conditioning."""
    mask: Tensor | None = None
    """Boolean, True = may attend, broadcastable to (B, 1, S, slots seen); None = causal."""


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) in float32, cast back, then scaled by a learned weight (in this order)."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        normed = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return normed.to(x.dtype) * self.weight


class DropPath(nn.Module):
    """Stochastic depth: in training drops a residual branch for whole samples, and scales the kept ones up."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, branch: Tensor) -> Tensor:
        if not self.training or self.rate == 0.0:
            return branch
        keep = 1.0 - self.rate
        kept = torch.empty(branch.shape[0], 1, 1, device=branch.device, dtype=branch.dtype).bernoulli_(keep)
        return branch * (kept / keep)


class SwiGLU(nn.Module):
    """W2(silu(W1 x) * W3 x), then dropout."""

    def __init__(self, config: TrunkConfig) -> None:
        super().__init__()
        self.w1 = nn.Linear(config.dim, config.ffn_dim, bias=False)
        self.w3 = nn.Linear(config.dim, config.ffn_dim, bias=False)
        self.w2 = nn.Linear(config.ffn_dim, config.dim, bias=False)
        self.dropout = nn.Dropout(config.ffn_dropout_p)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(gated_linear(self.w1(x), self.w3(x), self.w2))


class Attention(nn.Module):
    """Self-attention with one fused projection for queries, keys and values."""

    def __init__(self, config: TrunkConfig) -> None:
        super().__init__()
        self.heads = (config.n_head, config.num_kv_heads, config.num_kv_heads)  # q, k, v
        self.head_dim = config.head_dim
        self.attn_dropout_p = config.attn_dropout_p
        self.wqkv = nn.Linear(config.dim, sum(self.heads) * self.head_dim, bias=False)
        self.wo = nn.Linear(config.dim, config.dim, bias=False)
        self.resid_dropout = nn.Dropout(config.resid_dropout_p)

    def forward(self, x: Tensor, this: Pass, cache: LayerCache | None = None) -> Tensor:
        """x (B, S, D) -> (B, S, D). With a cache the keys and values of earlier slots are attended to as well.

        Where the cache has a multiple of B rows, x is repeated to fill them: each copy has its own past.
        """
        qkv = self.project_in(x, this).unflatten(-1, (-1, self.head_dim))  # (B, S, H + 2 Hkv, h)
        return self.resid_dropout(self.project_out(self.attend(qkv, this, cache), this))

    def project_in(self, x: Tensor, this: Pass) -> Tensor:
        """(B, S, D) -> queries, keys and values (B, S, (H + 2 Hkv) h)."""
        return self.wqkv(x)

    def project_out(self, mixed: Tensor, this: Pass) -> Tensor:
        """Concatenated heads (B, S, D) -> (B, S, D)."""
        return self.wo(mixed)

    def attend(self, qkv: Tensor, this: Pass, cache: LayerCache | None) -> Tensor:
        """From projected (B, S, H + 2 Hkv, h) to concatenated heads (B, S, D)."""
        num_heads, num_kv, _ = self.heads
        qk, v = qkv.split((num_heads + num_kv, num_kv), dim=2)
        q, k = rotate(qk, this.rotary).split((num_heads, num_kv), dim=2)
        q, k, v = (part.transpose(1, 2) for part in (q, k, v))
        if cache is not None:
            assert this.slots is not None
            # Both halves of guidance are fed the same token, so up to here the first block computes only one of them.
            q, k, v = (repeated(part, cache.keys.shape[0]) for part in (q, k, v))
            k, v = cache.append(this.slots, k, v, this.length)
            if q.shape[2] == 1:
                return attend_one(q, cache, this.length, this.mask).transpose(1, 2).flatten(2)
        mixed = F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=this.mask,
            dropout_p=self.attn_dropout_p if self.training else 0.0,
            is_causal=this.mask is None,
            enable_gqa=self.heads[0] != self.heads[1],
        )
        return mixed.transpose(1, 2).flatten(2)


def repeated(x: Tensor, rows: int) -> Tensor:
    """x (B, ...) repeated to fill `rows` rows; x itself where it already does."""
    return x if x.shape[0] == rows else x.repeat(rows // x.shape[0], *[1] * (x.ndim - 1))


class Block(nn.Module):
    """Pre-norm residual block: attention, then feed-forward."""

    def __init__(self, config: TrunkConfig, layer: int) -> None:
        super().__init__()
        # Registration order is that of the released models: optimizer states number parameters by it.
        self.attention = Attention(config)
        self.feed_forward = SwiGLU(config)
        self.attention_norm = RMSNorm(config.dim, config.norm_eps)
        self.ffn_norm = RMSNorm(config.dim, config.norm_eps)
        self.drop_path = DropPath(config.drop_path_of(layer))

    def forward(self, x: Tensor, this: Pass, cache: LayerCache | None = None) -> Tensor:
        """The residual stream (B, S, D) before and after this block."""
        mixed = self.drop_path(self.attention(self.attention_norm(x), this, cache))
        x = repeated(x, mixed.shape[0]) + mixed
        return x + self.drop_path(self.feed_forward(self.ffn_norm(x)))
