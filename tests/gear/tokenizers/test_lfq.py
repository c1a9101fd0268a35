"""LFQ and GLFQ: sign patterns, their ids, and the decoder that reads their statistics."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from gear.tokenizers import GLFQConfig, build_tokenizer
from gear.tokenizers.lfq_backbone import DepthToSpace


@pytest.fixture
def lfq(tiny_tokenizer):
    return tiny_tokenizer("lfq")


@pytest.fixture
def glfq(tiny_tokenizer):
    return tiny_tokenizer("glfq")


def test_channel_zero_is_the_least_significant_bit(lfq):
    vectors = lfq.quantize.lookup(torch.tensor([0, 1, 8]))
    assert vectors.tolist() == [[-1, -1, -1, -1], [1, -1, -1, -1], [-1, -1, -1, 1]]


def test_zero_counts_as_minus_one(lfq):
    code = lfq.eval().quantise(torch.tensor([0.0, 0.5, -0.5, -0.0]).view(1, 4, 1, 1))
    assert code.code_ids.tolist() == [2]
    assert code.quant.flatten().tolist() == [-1, 1, -1, -1]


def test_the_codebook_is_no_part_of_the_weights(lfq):
    assert not [key for key in lfq.state_dict() if key.startswith("quantize")]


def test_gradients_pass_the_signs_unchanged(lfq):
    pre_quant = torch.randn(1, 4, 3, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    weights = torch.arange(36.0).view(1, 4, 3, 3)
    (lfq.quantise(pre_quant).quant * weights).sum().backward()
    assert torch.equal(pre_quant.grad, weights)


def test_the_ids_of_a_token_are_those_of_its_groups_of_channels(glfq):
    pre_quant = torch.tensor([1.0, -1.0, -1.0, -1.0, 1.0, 1.0]).view(1, 6, 1, 1)
    code = glfq.eval().quantise(pre_quant)
    assert code.code_ids.tolist() == [1, 6]
    assert torch.equal(glfq.quantize.lookup(code.code_ids), pre_quant.view(1, 6))


def test_one_group_at_full_depth_is_lfq(lfq, pixels):
    config = GLFQConfig(
        ch=32,
        num_res_blocks=1,
        ch_mult=(1, 1),
        codebook_embed_dim=4,
        num_codebooks=1,
        downsample=2,
    )
    twin = build_tokenizer(config)
    twin.load_state_dict(lfq.state_dict())
    ours, theirs = twin(pixels), lfq(pixels)
    assert torch.equal(ours.code_ids, theirs.code_ids)
    assert torch.equal(ours.recon, theirs.recon)
    assert torch.equal(ours.losses.total(), theirs.losses.total())


def test_a_smaller_factor_keeps_the_resolution_of_the_deep_levels(pixels):
    config = GLFQConfig(ch=32, num_res_blocks=1, ch_mult=(1, 1, 1), codebook_embed_dim=4, num_codebooks=1, downsample=2)
    tokenizer = build_tokenizer(config)
    code = tokenizer(pixels)
    assert code.quant.shape == (2, 4, 4, 6) and code.recon.shape == pixels.shape
    changing = {key.rsplit(".", 2)[0] for key in tokenizer.state_dict() if "sample" in key}
    assert changing == {"encoder.down.0", "decoder.up.1.upsample"}


def test_a_map_of_a_single_token_is_refused_instead_of_decoded_to_nan(lfq):
    with pytest.raises(ValueError, match="two positions"):
        lfq.decode(torch.ones(1, 4, 1, 1))


def test_depth_to_space_puts_pixels_before_channels():
    block = DepthToSpace(32)
    with torch.no_grad():
        block.conv1.weight.zero_()
        block.conv1.bias.copy_(torch.arange(4.0).repeat_interleave(32))
    doubled = block(torch.zeros(1, 32, 1, 1))
    assert doubled[0, 7].tolist() == [[0, 1], [2, 3]]
    assert not torch.equal(doubled, F.pixel_shuffle(block.conv1(torch.zeros(1, 32, 1, 1)), 2))
