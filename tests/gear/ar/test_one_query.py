"""Attention of a single query, against the full attention of PyTorch."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from gear.ar.cache import LayerCache
from gear.ar.one_query import attend_one
from gear.numerics import cpu_threads

WIDTH, SLOTS = 64, 264


def filled(rows: int, heads: int, kv_heads: int, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, LayerCache]:
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(rows, heads, 1, WIDTH, generator=generator).to(dtype)
    keys, values = (torch.randn(rows, kv_heads, SLOTS, WIDTH, generator=generator).to(dtype) for _ in range(2))
    return q, LayerCache(keys, values)


def expected(q: torch.Tensor, cache: LayerCache, length: int, mask: torch.Tensor | None = None) -> torch.Tensor:
    keys, values = (part[:, :, :length].double() for part in (cache.keys, cache.values))
    gqa = q.shape[1] != keys.shape[1]
    return F.scaled_dot_product_attention(q.double(), keys, values, attn_mask=mask, enable_gqa=gqa).to(q.dtype)


@pytest.mark.parametrize(("heads", "kv_heads"), [(12, 12), (12, 4), (12, 1)])
@pytest.mark.parametrize("length", [1, 37, SLOTS])
def test_it_is_attention_over_the_filled_slots(heads, kv_heads, length):
    q, cache = filled(4, heads, kv_heads)
    cache.keys[:, :, length:] = torch.nan  # what is not filled must not be read
    cache.values[:, :, length:] = torch.nan
    torch.testing.assert_close(attend_one(q, cache, length), expected(q, cache, length))


def test_masked_slots_are_not_seen():
    q, cache = filled(4, 6, 6)
    mask = torch.rand(4, 1, 1, 100, generator=torch.Generator().manual_seed(1)) < 0.5
    mask[..., -1] = True
    seen = attend_one(q, cache, 100, mask)
    torch.testing.assert_close(seen, expected(q, cache, 100, mask))
    cache.values[:, :, :100][~mask.expand(4, 6, 1, 100)[:, :, 0]] = 1e6
    assert torch.equal(attend_one(q, cache, 100, mask), seen)


@pytest.mark.parametrize("length", [1, 8, 33, 250])
def test_a_row_does_not_depend_on_the_other_rows_nor_on_the_number_of_threads(length):
    q, cache = filled(16, 12, 12)
    whole = attend_one(q, cache, length)
    for rows in (1, 7, 8):
        parts = [attend_one(*row, length) for row in zip(q.split(rows), split(cache, rows), strict=True)]
        assert torch.equal(torch.cat(parts), whole)
    for threads in (1, 2, 3):
        with cpu_threads(threads):
            assert torch.equal(attend_one(q, cache, length), whole)


def test_other_precisions_are_left_to_pytorch():
    q, cache = filled(2, 4, 2, torch.bfloat16)
    torch.testing.assert_close(attend_one(q, cache, 50), expected(q, cache, 50), rtol=0.02, atol=0.02)


def test_values_cached_in_inference_mode_can_be_used_in_a_backward_pass():
    q, cache = filled(2, 4, 4)
    with torch.inference_mode():
        attend_one(q, cache, 21)
    attend_one(q.requires_grad_(), LayerCache(cache.keys, cache.values.requires_grad_()), 21).sum().backward()
    assert q.grad is not None and cache.values.grad is not None


def split(cache: LayerCache, rows: int) -> list[LayerCache]:
    return [LayerCache(*parts) for parts in zip(cache.keys.split(rows), cache.values.split(rows), strict=True)]
