"""From a request set to a sample set: identity, resume, refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gear.ar import ARConfig, ClassConditionalAR
from gear.sampling.draws import PerImageDraw
from gear.sampling.engine import Engine, Speed
from gear.sampling.generate import generate, in_eval_mode
from gear.sampling.pixels import resize, to_u8
from gear.sampling.rollout import SamplingOptions, roll_out
from gear.tokenizers import VQConfig, build_tokenizer
from harness.contract.errors import UserError
from harness.contract.requests import Prompt, RequestSet, SamplingProtocol, class_requests, prompt_requests
from harness.contract.samples import SampleSet

PROTOCOL = SamplingProtocol(image_size=16, cfg_scale=1.5, temperature=0.9, top_k=20, top_p=0.95)
NUM_CODES = 32


def tiny_ar(**overrides) -> ClassConditionalAR:
    torch.manual_seed(0)
    fields = {"dim": 32, "n_layer": 2, "n_head": 4, "multiple_of": 16, "vocab_size": NUM_CODES, "block_size": 16}
    ar = ClassConditionalAR(ARConfig(**{**fields, "num_classes": 5, "init_std": 0.2, **overrides}))
    torch.nn.init.normal_(ar.output.weight, std=0.3)
    return ar


def tiny_tokenizer(num_codes: int = NUM_CODES):
    torch.manual_seed(0)
    config = VQConfig(
        codebook_size=num_codes, codebook_embed_dim=4, ch=32, num_res_blocks=1, z_channels=32,
        encoder_ch_mult=(1, 1, 1), decoder_ch_mult=(1, 1, 1),
    )  # fmt: skip
    return build_tokenizer(config)


@pytest.fixture(scope="module")
def models():
    return tiny_ar(), tiny_tokenizer()


def requests(count: int = 11, protocol: SamplingProtocol = PROTOCOL) -> RequestSet:
    return class_requests("toy", 1, protocol, count=count, num_classes=5)


def draw(models, out_dir, request_set=None, **options) -> SampleSet:
    options = {"generator": {"ar": "a" * 64}, "batch_size": 4, **options}
    return generate(*models, request_set or requests(), out_dir, **options)


def test_a_request_set_becomes_a_valid_sample_set(models, tmp_path):
    samples = draw(models, tmp_path / "samples")
    samples.validate()
    assert (len(samples), samples.image_size) == (11, 16)
    assert samples.labels.tolist() == requests().labels
    images_u8 = np.concatenate(list(samples.batches(4)))
    assert len(np.unique(images_u8.reshape(11, -1), axis=0)) == 11


@pytest.mark.parametrize("batch_size", [1, 7, 32])
def test_not_a_pixel_depends_on_the_batch_size(models, tmp_path, batch_size):
    request_set = requests(21)
    whole = draw(models, tmp_path / "whole", request_set, batch_size=16)
    assert draw(models, tmp_path / "parts", request_set, batch_size=batch_size).digest == whole.digest


def test_not_a_pixel_depends_on_the_order_of_the_requests(models, tmp_path):
    request_set = requests(11)
    order = np.random.default_rng(0).permutation(11)
    fields = {"benchmark": "toy", "version": 1, "protocol": PROTOCOL}
    shuffled = RequestSet(**fields, requests=[request_set[i] for i in order])
    straight = draw(models, tmp_path / "straight", request_set).images(range(11))
    assert np.array_equal(draw(models, tmp_path / "shuffled", shuffled).images(range(11)), straight[order])


def test_an_image_does_not_depend_on_the_other_requests(models, tmp_path):
    request_set = requests()
    all_of_them = draw(models, tmp_path / "all", request_set)
    first_five = draw(models, tmp_path / "few", request_set.limit(5))
    assert np.array_equal(first_five.images(range(5)), all_of_them.images(range(5)))


def test_both_forms_hold_the_same_images(models, tmp_path):
    assert draw(models, tmp_path / "npz").digest == draw(models, tmp_path / "png", form="png").digest


class Stop(Exception):
    """Ends a run in the middle."""


def test_an_interrupted_run_continues_with_finished_shards(models, tmp_path, monkeypatch):
    request_set = requests(40)  # five shards of a tile
    whole = draw(models, tmp_path / "whole", request_set).digest
    drawn, tokens = [], Engine.tokens

    def stop_at_the_third(engine, tile):
        drawn.append(tile[0].id)
        if len(drawn) == 3:
            raise Stop
        return tokens(engine, tile)

    monkeypatch.setattr(Engine, "tokens", stop_at_the_third)
    with pytest.raises(Stop):
        draw(models, tmp_path / "cut", request_set, batch_size=8)
    assert models[1].training  # put back, also when something fails
    finished = len(list((tmp_path / "cut/work").glob("shard-*.npz")))
    assert finished in (1, 2)  # the second may have waited for its pixels
    assert draw(models, tmp_path / "cut", request_set).digest == whole
    assert len(drawn) == 3 + 5 - finished


def test_a_finished_set_is_returned_without_drawing(models, tmp_path, monkeypatch):
    first = draw(models, tmp_path / "samples")
    monkeypatch.setattr(Engine, "tokens", None)
    assert draw(models, tmp_path / "samples").digest == first.digest


def test_samples_of_another_checkpoint_are_not_continued(models, tmp_path):
    draw(models, tmp_path / "samples")
    with pytest.raises(UserError, match="another generator"):
        draw(models, tmp_path / "samples", generator={"ar": "b" * 64})


def test_a_protocol_of_another_size_resizes_the_float_image(models, tmp_path):
    ar, tokenizer = models
    request_set = requests(3, SamplingProtocol(image_size=12))
    stored = draw(models, tmp_path / "small", request_set, batch_size=3).images(range(3))
    draws = PerImageDraw([request.seed for request in request_set], 16)
    with in_eval_mode(ar, tokenizer), torch.no_grad():
        ids = roll_out(ar, torch.tensor(request_set.labels), num_tokens=16, options=SamplingOptions(), draw=draws)
        pixels = tokenizer.decode_ids(ids)
    assert pixels.shape[-1] == 16
    assert np.array_equal(stored, to_u8(resize(pixels, 12)).numpy())


def test_labels_beyond_the_models_classes_are_refused(tmp_path):
    request_set = class_requests("toy", 1, PROTOCOL, count=9, num_classes=5)
    with pytest.raises(UserError, match=r"asks for class \d, but the AR model has 3"):
        draw((tiny_ar(num_classes=3), tiny_tokenizer()), tmp_path / "samples", request_set)
    assert not (tmp_path / "samples").exists()


def test_models_and_requests_that_do_not_fit_are_refused_before_any_work(models, tmp_path):
    ar, tokenizer = models
    with pytest.raises(UserError, match="has 32 codes but the tokenizer has 64"):
        draw((ar, tiny_tokenizer(64)), tmp_path / "a")
    with pytest.raises(UserError, match="no null class"):
        draw((tiny_ar(class_dropout_prob=0.0), tokenizer), tmp_path / "a")
    with pytest.raises(UserError, match="batch size is 0"):
        draw(models, tmp_path / "a", batch_size=0)
    with pytest.raises(UserError, match="tile is 0"):
        draw(models, tmp_path / "a", speed=Speed(tile=0))
    with pytest.raises(UserError, match="asks for 20 px, but the models draw 16 px"):
        draw(models, tmp_path / "a", requests(3, SamplingProtocol(image_size=20)))
    prompts = prompt_requests("toy", 1, PROTOCOL, prompts=[Prompt(item="0", text="a cat")])
    with pytest.raises(UserError, match="draws class labels"):
        draw(models, tmp_path / "a", prompts)
    assert not (tmp_path / "a").exists()


def test_broken_weights_are_reported(models, tmp_path):
    tokenizer = tiny_tokenizer()
    with torch.no_grad():
        tokenizer.decoder.conv_out.bias.fill_(torch.nan)
    with pytest.raises(UserError, match="not finite"):
        draw((models[0], tokenizer), tmp_path / "samples")


def test_every_submodule_gets_its_own_mode_back():
    ar = tiny_ar().train()
    ar.layers[0].eval()
    with in_eval_mode(ar):
        assert not any(module.training for module in ar.modules())
    assert ar.training and ar.layers[1].training and not ar.layers[0].training


@pytest.mark.parametrize("scale", [0.0, 0.5])
def test_a_guidance_scale_below_one_is_said_to_draw_like_one(models, tmp_path, caplog, scale):
    def drawn(scale: float) -> SampleSet:
        protocol = SamplingProtocol(image_size=16, cfg_scale=scale)
        return draw(models, tmp_path / f"{scale}", requests(4, protocol))

    below = drawn(scale)
    assert f"the guidance scale {scale:g} draws like 1, without guidance" in caplog.text
    pictures = [np.concatenate(list(samples.batches(4))) for samples in (below, drawn(1.0))]
    assert np.array_equal(*pictures)
