"""Text-to-image: prompts through a text encoder to images."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

from gear.ar import TextARConfig, TextToImageAR
from gear.ar.t2i import TextCondition
from gear.sampling.generate import generate
from gear.text import TextConfig
from harness.contract.errors import UserError
from harness.contract.requests import Prompt, SamplingProtocol, class_requests, prompt_requests
from tests.gear.sampling.test_generate import NUM_CODES, tiny_tokenizer

SLOTS, WIDTH = 6, 8
PROTOCOL = SamplingProtocol(image_size=16, cfg_scale=2.0, top_k=20)
TEXTS = ("a red seven", "a blue two", "a cat on the moon with a very long tail")


class LetterEncoder:
    """A real, if simple, encoder: one random vector per word, fixed by the word; long prompts are cut."""

    def __init__(self, dim: int = WIDTH) -> None:
        self.config = TextConfig(name="minilm", dim=dim, max_length=SLOTS)
        self.num_cut = 0
        self.seen: list[str] = []

    def encode(self, captions):
        return TextCondition(
            features=torch.stack([self._features(caption) for caption in captions]),
            mask=torch.tensor([[i < len(caption.split()) for i in range(SLOTS)] for caption in captions]),
        )

    def null(self):
        return self.encode([""])

    def _features(self, caption):
        self.seen.append(caption)
        words = caption.split()
        self.num_cut += len(words) > SLOTS
        padded = [*words[:SLOTS], *[""] * (SLOTS - len(words))]
        seeds = [sum(word.encode()) for word in padded]
        return torch.stack([torch.randn(WIDTH, generator=torch.Generator().manual_seed(seed)) for seed in seeds])


@pytest.fixture(scope="module")
def models():
    torch.manual_seed(0)
    config = TextARConfig(
        dim=32, n_layer=3, n_head=4, multiple_of=16, vocab_size=NUM_CODES, block_size=16, init_std=0.2,
        cls_token_num=SLOTS, caption_dim=WIDTH,
    )  # fmt: skip
    ar = TextToImageAR(config)
    torch.nn.init.normal_(ar.output.weight, std=0.3)
    return ar, tiny_tokenizer()


def asked(texts=TEXTS, repeats=2, protocol=PROTOCOL):
    prompts = [Prompt(item=str(index), text=text) for index, text in enumerate(texts)]
    return prompt_requests("toy", 1, protocol, prompts=prompts, repeats=repeats)


def draw(models, out_dir, request_set=None, encoder=None, **options):
    encoder = encoder or LetterEncoder()
    return generate(*models, request_set or asked(), out_dir, generator={}, encoder=encoder, **options)


def test_each_distinct_prompt_is_encoded_once_and_long_ones_are_counted(models, tmp_path, caplog):
    encoder = LetterEncoder()
    with caplog.at_level(logging.WARNING):
        samples = draw(models, tmp_path / "out", asked(repeats=5), encoder)
    samples.validate()
    assert sorted(encoder.seen) == sorted(["", *TEXTS])
    assert "1 prompts were longer than 6 tokens and were cut" in caplog.text


def test_an_image_does_not_depend_on_the_other_prompts(models, tmp_path):
    every = draw(models, tmp_path / "all").images(range(6))
    assert np.array_equal(draw(models, tmp_path / "few", asked().limit(3)).images(range(3)), every[:3])
    assert draw(models, tmp_path / "again", batch_size=1).digest == draw(models, tmp_path / "all").digest
    assert len(np.unique(every.reshape(6, -1), axis=0)) == 6


def test_images_are_enlarged_to_the_size_that_a_benchmark_wants(models, tmp_path):
    large = SamplingProtocol(image_size=32, cfg_scale=2.0, top_k=20)
    assert draw(models, tmp_path / "out", asked(protocol=large)).images(range(2)).shape == (2, 32, 32, 3)


def test_what_a_text_to_image_model_cannot_draw_is_refused_in_one_sentence(models, tmp_path):
    with pytest.raises(UserError, match="has an empty prompt"):
        draw(models, tmp_path / "out", asked(("a cat", " ")))
    with pytest.raises(UserError, match="draws prompts"):
        draw(models, tmp_path / "out", class_requests("toy", 1, PROTOCOL, count=2, num_classes=3))
    with pytest.raises(UserError, match="gives 6 tokens of 5 channels"):
        draw(models, tmp_path / "out", encoder=LetterEncoder(dim=5))
    with pytest.raises(UserError, match="needs the text encoder"):
        generate(*models, asked(), tmp_path / "out", generator={})
    assert not (tmp_path / "out").exists()
