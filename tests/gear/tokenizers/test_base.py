"""What holds for the tokenizers of every family."""

from __future__ import annotations

import json

import pytest
import torch

from gear.tokenizers import TOKENIZERS, GLFQConfig, IBQConfig, LFQConfig, TokenizerConfig, VQConfig, build_tokenizer


def test_decoding_ids_equals_decoding_their_code_vectors(tokenizer, pixels):
    tokenizer.eval()
    code = tokenizer(pixels)
    vectors = tokenizer.lookup(code.code_ids, (2, 4, 6))
    torch.testing.assert_close(vectors, code.quant, atol=1e-6, rtol=0)
    torch.testing.assert_close(tokenizer.decode(vectors), code.recon, atol=1e-5, rtol=0)


def test_square_images_are_decoded_from_their_ids_alone(tokenizer, pixels):
    tokenizer.eval()
    square = pixels[:, :, :, :8]
    code = tokenizer(square)
    torch.testing.assert_close(tokenizer.decode_ids(code.code_ids.view(2, -1)), code.recon, atol=1e-5, rtol=0)


def test_ids_that_form_no_square_are_refused(tokenizer):
    with pytest.raises(ValueError, match="square grid"):
        tokenizer.decode_ids(torch.zeros(1, 6 * tokenizer.config.codes_per_token, dtype=torch.int64))


def test_code_ids_run_in_raster_order(tokenizer, pixels):
    code = tokenizer.eval().encode(pixels)
    batch, row, column = 1, 2, 5
    per_token = tokenizer.config.codes_per_token
    first = ((batch * 4 + row) * 6 + column) * per_token
    vector = tokenizer.quantize.lookup(code.code_ids[first : first + per_token])[0]
    torch.testing.assert_close(vector, code.quant[batch, :, row, column], atol=1e-6, rtol=0)


def test_the_nearest_code_is_the_chosen_one(tokenizer, pixels):
    code = tokenizer.encode(pixels)
    rows = 2 * 4 * 6 * tokenizer.config.codes_per_token
    assert code.code_distances.shape == (rows, tokenizer.config.num_codes)
    assert torch.equal(code.code_distances.argmin(dim=1), code.code_ids)


def test_the_mode_changes_the_losses_and_nothing_else(tokenizer, pixels):
    training, evaluation = tokenizer.train()(pixels), tokenizer.eval()(pixels)
    for name in ("quant", "code_ids", "code_distances", "recon"):
        assert torch.equal(getattr(training, name), getattr(evaluation, name)), name
    assert evaluation.losses.total() == 0.0
    assert training.losses.total().requires_grad


def test_soft_distances_carry_a_gradient_to_the_encoder(tokenizer, pixels):
    tokenizer.encode(pixels).code_distances.square().mean().backward()
    assert tokenizer.encoder.conv_in.weight.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in tokenizer.decoder.parameters())


def test_codes_are_chosen_in_float32_under_autocast(tokenizer, pixels):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        code = tokenizer(pixels)
    assert code.code_distances.dtype == code.quant.dtype == torch.float32
    assert code.recon.dtype == torch.bfloat16


def test_images_that_do_not_fit_the_grid_are_refused(tokenizer):
    with pytest.raises(ValueError, match="multiples of 2"):
        tokenizer(torch.zeros(1, 3, 8, 9))


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_configuration_survives_json(name):
    config = TOKENIZERS[name]
    assert TokenizerConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize("name", TOKENIZERS)
def test_the_number_in_a_name_is_the_pixels_per_token(name):
    config = TOKENIZERS[name]
    assert config.downsample == int(name.split("-")[1])
    assert config.tokens(256) == (256 // config.downsample) ** 2


def test_an_image_size_between_two_grids_is_refused():
    with pytest.raises(ValueError, match="multiple of 16"):
        TOKENIZERS["VQ-16"].tokens(250)


def test_an_unknown_field_is_named_with_its_neighbour():
    with pytest.raises(ValueError, match="no field 'codebok_size'; did you mean 'codebook_size'"):
        TokenizerConfig.from_dict({"family": "vq", "codebok_size": 512})


def test_an_unknown_family_is_named_with_the_known_ones():
    with pytest.raises(ValueError, match="unknown tokenizer family 'vqq'; known: glfq, ibq, lfq, vq"):
        TokenizerConfig.from_dict({"family": "vqq"})


@pytest.mark.parametrize(
    ("family", "fields", "message"),
    [
        (VQConfig, {"ch": 48}, "multiple of 32"),
        (VQConfig, {"encoder_ch_mult": (1, 2)}, "same length"),
        (VQConfig, {"codebook_size": 0}, "positive"),
        (VQConfig, {"commit_loss_beta": -1.0}, "commit_loss_beta must not be negative"),
        (LFQConfig, {"codebook_size": 1000}, "power of two, got 1000"),
        (GLFQConfig, {"num_codebooks": 5}, "32 bits cannot be divided into 5"),
        (GLFQConfig, {"num_codebooks": 1}, "raise num_codebooks"),
        (GLFQConfig, {"downsample": 12}, "power of two from 2 to 16"),
        (IBQConfig, {"entropy_loss_temperature": 0.0}, "entropy_loss_temperature must be positive"),
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused_in_the_users_words(family, fields, message):
    with pytest.raises(ValueError, match=message):
        family(**fields)


def test_only_tokenizer_configurations_are_built():
    with pytest.raises(TypeError, match="no tokenizer can be built from dict"):
        build_tokenizer({})
