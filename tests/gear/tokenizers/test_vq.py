"""VQ: nearest unit vectors and where the gradients go."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from gear.tokenizers import build_tokenizer


@pytest.fixture
def vq(tiny_tokenizer):
    return tiny_tokenizer("vq")


def test_distances_are_squared_differences_of_unit_vectors(vq, pixels):
    z = F.normalize(vq.pre_quant(pixels).permute(0, 2, 3, 1).reshape(-1, 4), dim=1)
    codebook = F.normalize(vq.quantize.embedding.weight, dim=1)
    wanted = (z[:, None] - codebook[None]).square().sum(dim=2)
    torch.testing.assert_close(vq.encode(pixels).code_distances, wanted, atol=1e-5, rtol=0)


def test_the_length_of_codebook_rows_does_not_matter(vq, pixels):
    before = vq.encode(pixels)
    with torch.no_grad():
        vq.quantize.embedding.weight *= torch.rand(32, 1) + 0.5
    after = vq.encode(pixels)
    assert torch.equal(after.code_ids, before.code_ids)
    torch.testing.assert_close(after.quant, before.quant)


def test_without_l2_norm_the_length_of_codebook_rows_matters(vq, pixels):
    plain = build_tokenizer(replace(vq.config, codebook_l2_norm=False))
    code = plain.encode(pixels)
    vectors = plain.quantize.embedding(code.code_ids)
    torch.testing.assert_close(code.quant.permute(0, 2, 3, 1).reshape(-1, 4), vectors, atol=1e-6, rtol=0)


def test_the_reconstruction_gradient_reaches_the_encoder_and_not_the_codebook(vq, pixels):
    vq(pixels).recon.square().mean().backward()
    assert vq.quantize.embedding.weight.grad is None
    assert vq.encoder.conv_in.weight.grad.abs().sum() > 0


def test_the_codebook_loss_trains_the_codebook_and_the_commitment_loss_the_encoder(vq, pixels):
    losses = vq.encode(pixels).losses
    codebook = vq.quantize.embedding.weight
    to_codebook, to_encoder = torch.autograd.grad(
        losses.vq, [codebook, vq.quant_conv.weight], retain_graph=True, allow_unused=True
    )
    assert to_codebook.abs().sum() > 0 and to_encoder is None
    to_codebook, to_encoder = torch.autograd.grad(losses.commit, [codebook, vq.quant_conv.weight], allow_unused=True)
    assert to_codebook is None and to_encoder.abs().sum() > 0


def test_beta_is_inside_the_commitment_loss(vq, pixels):
    losses = vq.encode(pixels).losses
    torch.testing.assert_close(losses.commit, vq.config.commit_loss_beta * losses.vq)


def test_the_entropy_weight_multiplies_the_scaled_entropy_only(vq, pixels):
    losses = vq.encode(pixels).losses
    torch.testing.assert_close(losses.total(0.5), losses.vq + losses.commit + 0.5 * losses.entropy.total)
    torch.testing.assert_close(
        losses.entropy.total, vq.config.entropy_loss_ratio * (losses.entropy.sample - losses.entropy.average)
    )


def test_a_fresh_codebook_has_unit_rows(vq):
    torch.testing.assert_close(vq.quantize.embedding.weight.norm(dim=1), torch.ones(32))
