"""Tokenizers in channels-last layout and under bfloat16 autocast, as on a GPU: results match float32 in row layout."""

from __future__ import annotations

import torch
from torch import Tensor

from gear.tokenizers import Tokenizer


def step(tokenizer: Tokenizer, pixels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """The reconstruction, and all gradients of a training loss."""
    tokenizer.zero_grad()
    code = tokenizer(pixels)
    loss = (code.recon.float() - pixels).square().mean() + code.losses.total()
    torch.as_tensor(loss).backward()
    return code.recon.detach(), {name: p.grad for name, p in tokenizer.named_parameters() if p.grad is not None}


def test_in_channels_last_a_tokenizer_computes_the_same(tokenizer, pixels):
    # In float64, so that no token is equally close to two codes within rounding.
    tokenizer, pixels = tokenizer.double(), pixels.double()
    recon, gradients = step(tokenizer, pixels)
    tokenizer.layout = torch.channels_last
    seen = []
    for part in (tokenizer.encoder, tokenizer.decoder):
        part.register_forward_hook(lambda _, inputs, maps: seen.append(maps))
    our_recon, our_gradients = step(tokenizer, pixels)
    if tokenizer.config.family in ("vq", "ibq"):  # a CPU's small convolutions without a bias give rows in any case
        assert all(maps.is_contiguous(memory_format=torch.channels_last) for maps in seen)
    torch.testing.assert_close(our_recon, recon)
    torch.testing.assert_close(our_gradients, gradients, rtol=1e-6, atol=1e-12)


def test_under_autocast_convolutions_are_bfloat16_and_gradients_float32(tokenizer, pixels):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert tokenizer.pre_quant(pixels).dtype == torch.bfloat16
        recon, gradients = step(tokenizer, pixels)
    assert recon.dtype == torch.bfloat16
    assert {gradient.dtype for gradient in gradients.values()} == {torch.float32}
    assert all(gradient.isfinite().all() for gradient in gradients.values())


def test_under_autocast_the_maps_stay_within_bfloat16_of_float32(tokenizer, pixels):
    """Encoder outputs within 2 % of their size; decodings of the same codes, through more norms, within 5 %."""
    code = tokenizer.eval().encode(pixels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        encoded, decoded = tokenizer.pre_quant(pixels).float(), tokenizer.decode(code.quant).float()
    for got, wanted, limit in (
        (encoded, tokenizer.pre_quant(pixels), 0.02),
        (decoded, tokenizer.decode(code.quant), 0.05),
    ):
        error = float(((got - wanted).norm() / wanted.norm()).detach())
        assert error < limit, error
