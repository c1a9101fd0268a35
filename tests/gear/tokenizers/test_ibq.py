"""IBQ: the gradient through the softmax over all codes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from gear.tokenizers import build_tokenizer


@pytest.fixture
def ibq(tiny_tokenizer):
    return tiny_tokenizer("ibq")


def test_the_gradient_is_that_of_a_straight_through_one_hot(ibq, pixels):
    """The textbook form holds an (N, K) one-hot; ours gives its gradients without it."""
    pre_quant = ibq.pre_quant(pixels).detach()
    codebook = ibq.quantize.embedding.weight
    weights = torch.randn(pre_quant.shape, generator=torch.Generator().manual_seed(0))

    ours_in = pre_quant.clone().requires_grad_()
    ours = torch.autograd.grad((ibq.quantise(ours_in).quant * weights).sum(), [ours_in, codebook])

    theirs_in = pre_quant.clone().requires_grad_()
    soft = (theirs_in.permute(0, 2, 3, 1).reshape(-1, 8) @ codebook.T).softmax(dim=1)
    hard = F.one_hot(soft.argmax(dim=1), 32).float()
    quant = ((hard - soft).detach() + soft) @ codebook
    rows = weights.permute(0, 2, 3, 1).reshape(-1, 8)
    theirs = torch.autograd.grad((quant * rows).sum(), [theirs_in, codebook])

    for got, wanted in zip(ours, theirs, strict=True):
        torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-4)


def test_every_code_learns_from_the_reconstruction(ibq, pixels):
    ibq(pixels).recon.square().mean().backward()
    assert (ibq.quantize.embedding.weight.grad.abs().sum(dim=1) > 0).all()


def test_the_whole_quantiser_loss_is_in_one_field(ibq, pixels):
    losses = ibq.encode(pixels).losses
    assert losses.commit is None
    assert losses.vq is not None and losses.entropy is not None


def test_without_the_entropy_regulariser_there_is_none(ibq, pixels):
    plain = build_tokenizer(replace(ibq.config, use_entropy_loss=False))
    assert plain.encode(pixels).losses.entropy is None


def test_cosine_chooses_by_angle_and_returns_the_entry_as_stored(ibq, pixels):
    cosine = build_tokenizer(replace(ibq.config, cosine_similarity=True))
    code = cosine.encode(pixels)
    assert code.code_distances.abs().max() <= 1 + 1e-5
    vectors = cosine.quantize.lookup(code.code_ids)
    assert torch.equal(vectors, cosine.quantize.embedding.weight[code.code_ids])


def test_attention_follows_the_nominal_resolution(ibq):
    config = replace(ibq.config, attn_resolutions=(16,))
    keys = build_tokenizer(config).state_dict()
    assert any(key.startswith("encoder.down.1.attn") for key in keys)
    assert not any(key.startswith("encoder.down.0.attn") for key in keys)
