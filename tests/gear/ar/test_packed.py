"""The copy for decoding, and steps whose slot is counted on the device."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from gear.ar.packed import FusedRMSNorm, PackedLinear, PackedSwiGLU, for_decoding
from tests.gear.ar.test_model import tiny


@pytest.mark.parametrize("shape", [(96, 32), (2304, 768), (768, 2048)])
def test_a_row_of_a_packed_product_does_not_depend_on_the_others(shape):
    generator = torch.Generator().manual_seed(0)
    weight, x = (torch.randn(rows, shape[1], generator=generator) for rows in (shape[0], 32))
    packed = PackedLinear(weight)
    whole = packed(x)
    torch.testing.assert_close(whole, F.linear(x, weight), rtol=1e-4, atol=1e-3)
    order = torch.randperm(32, generator=generator)
    assert torch.equal(packed(x[order]), whole[order])
    for rows in (16, 9, 8, 1):
        assert torch.equal(torch.cat([packed(part) for part in x.split(rows)]), whole)


@pytest.mark.parametrize("rows", [1, 16])
def test_packed_parts_give_what_the_parts_they_replace_give(rows):
    block = tiny().layers[0]
    x = torch.randn(rows, 1, block.ffn_norm.weight.shape[0])
    with torch.inference_mode():
        torch.nn.init.normal_(block.ffn_norm.weight)
        torch.testing.assert_close(FusedRMSNorm(block.ffn_norm)(x), block.ffn_norm(x))
        torch.testing.assert_close(PackedSwiGLU(block.feed_forward)(x), block.feed_forward(x))


def test_the_copy_shares_what_it_does_not_pack_and_does_not_change_the_model():
    ar = tiny().train()
    decoder = for_decoding(ar)
    assert decoder.tok_embeddings.weight is ar.tok_embeddings.weight
    assert isinstance(decoder.output, PackedLinear) and isinstance(ar.output, torch.nn.Linear)
    assert ar.training and not decoder.training


def test_another_precision_leaves_the_models_own_weights():
    ar = tiny()
    decoder = for_decoding(ar, dtype=torch.bfloat16)
    assert (ar.output.weight.dtype, decoder.output.weight.dtype) == (torch.float32, torch.bfloat16)
    assert decoder.new_cache(2).keys.dtype == torch.bfloat16


def test_guidance_is_fed_once_and_equals_the_doubled_batch():
    ar, labels = tiny(), torch.tensor([1, 3])
    both = ar.with_null(labels)
    shared, doubled = ar.new_cache(4), ar.new_cache(4)
    for cache in (shared, doubled):
        ar.prefill(both, cache)
    tokens = torch.tensor([4, 9])
    torch.testing.assert_close(ar.decode(tokens, 1, shared), ar.decode(tokens.repeat(2), 1, doubled))
    torch.testing.assert_close(shared.keys, doubled.keys)


def test_a_slot_on_the_device_reads_a_longer_cache_behind_a_mask():
    ar, labels = tiny(), torch.tensor([1, 3])
    exact, padded = ar.new_cache(2), ar.new_cache(2)
    padded.keys.normal_()  # what lies behind the slot must not be seen
    padded.values.normal_()
    ar.prefill(labels, exact)
    ar.prefill(labels, padded)
    for slot in range(1, 5):
        tokens = torch.tensor([slot, 2 * slot])
        counted = ar.decode(tokens, torch.tensor([slot]), padded, length=8)
        torch.testing.assert_close(counted, ar.decode(tokens, slot, exact))


@pytest.mark.slow
def test_compiled_blocks_decode_the_same(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr("torch._inductor.config.compile_threads", 1)  # in this process, no workers
    ar, labels = tiny().double(), torch.tensor([1, 3])
    compiled = for_decoding(ar, compiled=True)
    logits = []
    for model in (ar, compiled):
        cache = model.new_cache(2)
        with torch.inference_mode():
            model.prefill(labels, cache)
            logits.append(model.decode(torch.tensor([5, 6]), torch.tensor([1]), cache, length=8))
    torch.testing.assert_close(*logits)
