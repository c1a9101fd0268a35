"""The adapter on pipelines of the real classes, tiny and random, made on the spot."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.contract import Prompt, SampleSet, SamplingProtocol, class_requests, prompt_requests

EXAMPLES = Path(__file__).parents[2] / "examples"
PROTOCOL = SamplingProtocol(image_size=16, cfg_scale=2.0)


def adapter(model: Path, requests: Path, out: Path, *more: object) -> subprocess.CompletedProcess[str]:
    words = ["--model", model, "--requests", requests, "--out", out, "--steps", 2, "--device", "cpu", *more]
    command = [sys.executable, str(EXAMPLES / "diffusers_generator.py"), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def tiny_vae():
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(8,), norm_num_groups=8, latent_channels=4, sample_size=16,
        down_block_types=("DownEncoderBlock2D",), up_block_types=("UpDecoderBlock2D",), layers_per_block=1,
    )  # fmt: skip


@pytest.fixture(scope="module")
def dit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A class-conditional DiT of 16 px."""
    from diffusers import DDIMScheduler, DiTPipeline, DiTTransformer2DModel

    torch.manual_seed(0)
    transformer = DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=4, out_channels=8, num_layers=1, sample_size=16,
        patch_size=2, num_embeds_ada_norm=1000, norm_num_groups=8,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("dit")
    DiTPipeline(transformer=transformer, vae=tiny_vae(), scheduler=DDIMScheduler()).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def stable_diffusion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text-to-image pipeline of 16 px whose tokenizer knows single letters."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("sd")
    letters = [*"abcdefghijklmnopqrstuvwxyz"]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(vocab={word: index for index, word in enumerate(words)}, merges=[])
    tokenizer.model_max_length = 16
    text = CLIPTextConfig(
        vocab_size=len(words), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=16, bos_token_id=len(words) - 2, eos_token_id=len(words) - 1,
    )  # fmt: skip
    unet = UNet2DConditionModel(
        block_out_channels=(8, 8), layers_per_block=1, sample_size=16, in_channels=4, out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=16, attention_head_dim=2, norm_num_groups=4,
    )  # fmt: skip
    pipeline = StableDiffusionPipeline(
        vae=tiny_vae(), text_encoder=CLIPTextModel(text), tokenizer=tokenizer, unet=unet, scheduler=DDIMScheduler(),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_a_class_conditional_pipeline_draws_labels_from_the_seed_of_each_request(dit, tmp_path):
    requests = class_requests("toy", 1, PROTOCOL, count=5, num_classes=1000)
    requests.write(tmp_path / "requests")
    requests.limit(2).write(tmp_path / "two")
    assert (done := adapter(dit, tmp_path / "requests", tmp_path / "all", "--batch-size", 2)).returncode == 0, done
    assert (done := adapter(dit, tmp_path / "two", tmp_path / "few", "--batch-size", 2)).returncode == 0, done
    every = SampleSet.open(tmp_path / "all")
    every.validate()
    images_u8 = every.images(range(5))
    assert len(np.unique(images_u8.reshape(5, -1), axis=0)) == 5
    assert np.array_equal(SampleSet.open(tmp_path / "few").images(range(2)), images_u8[:2])


@pytest.mark.slow
def test_a_text_to_image_pipeline_draws_prompts(stable_diffusion, tmp_path):
    prompts = [Prompt(item=str(index), text=text) for index, text in enumerate(("a red seven", "a blue two"))]
    prompt_requests("toy", 1, PROTOCOL, prompts=prompts, repeats=2).write(tmp_path / "requests")
    done = adapter(stable_diffusion, tmp_path / "requests", tmp_path / "out", "--form", "png")
    assert done.returncode == 0, done.stderr
    samples = SampleSet.open(tmp_path / "out")
    samples.validate()
    assert (len(samples), samples.image_size, samples.form) == (4, 16, "png")


@pytest.mark.slow
def test_what_does_not_fit_is_one_sentence(dit, tmp_path):
    prompt_requests("toy", 1, PROTOCOL, prompts=[Prompt(item="0", text="a cat")]).write(tmp_path / "prompts")
    class_requests("toy", 1, SamplingProtocol(image_size=16, top_k=5), count=2, num_classes=3).write(
        tmp_path / "filtered"
    )
    for requests, sentence in (("prompts", "does not take prompts"), ("filtered", "--protocol top_k=0")):
        done = adapter(dit, tmp_path / requests, tmp_path / "out")
        assert (done.returncode, sentence in done.stderr, "Traceback" in done.stderr) == (2, True, False)
    done = adapter(tmp_path / "nothing", tmp_path / "prompts", tmp_path / "elsewhere")
    assert done.returncode == 4
    assert "hf download" in done.stderr
