"""A text-to-image run small enough for a unit test: the run of `tiny.py`, with a tiny random Qwen3 as text encoder."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch

from gear.align import Projectors
from gear.ar.t2i import TextToImageAR
from gear.config import RunConfig
from gear.text import TextConfig
from gear.text.transformer import TransformerTextEncoder
from gear.tokenizers import build_tokenizer
from gear.training.stages.t2i import TextToImageStage
from tests.gear import tiny

TEXT = TextConfig(name="qwen3", dim=16, max_length=6, caption_dropout=0.3)


@cache
def tokenizer() -> Any:
    """A byte-level BPE tokenizer without merges, of the kind of Qwen's: no token is added, padding is <|endoftext|>."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate([*alphabet, "<|endoftext|>"])}
    bpe = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=bpe, pad_token="<|endoftext|>", eos_token="<|endoftext|>")


@cache
def qwen3() -> Any:
    """Qwen3's true architecture (grouped queries, query and key norms, rotary positions) with tiny random weights."""
    from transformers import Qwen3Config, Qwen3Model

    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "hidden_size": TEXT.feature_dim,
        "intermediate_size": 32,
        "head_dim": 8,
        "num_hidden_layers": 2,
    }
    heads: dict[str, Any] = {"num_attention_heads": 4, "num_key_value_heads": 2}
    return Qwen3Model(Qwen3Config(vocab_size=len(tokenizer()), **sizes, **heads)).eval()


def encoder(config: TextConfig = TEXT) -> TransformerTextEncoder:
    return TransformerTextEncoder(config, qwen3(), tokenizer())


def config(base: RunConfig | None = None) -> RunConfig:
    """The text-to-image version of a class-conditional configuration; stage t2i is like its stage ar."""
    values = (base or tiny.config()).to_dict()
    sizes = ("dim", "n_layer", "n_head", "multiple_of", "token_dropout_p", "resid_dropout_p", "ffn_dropout_p")
    values["ar"] = {name: values["ar"][name] for name in sizes}
    values["text"] = {"name": TEXT.name, "dim": TEXT.dim, "max_length": 6, "caption_dropout": TEXT.caption_dropout}
    values["stages"]["t2i"] = values["stages"]["ar"]
    return RunConfig.from_dict(values)


def stage(run_config: RunConfig | None = None) -> TextToImageStage:
    """A freshly built stage, the same weights each time."""
    run_config = run_config or config()
    text_encoder = encoder()
    torch.manual_seed(0)
    ar = TextToImageAR(run_config.text_ar)
    torch.nn.init.normal_(ar.output.weight, std=0.02)  # a zero head would keep the first gradients from the trunk
    return TextToImageStage(
        run_config,
        torch.device("cpu"),
        text_encoder=text_encoder,
        tokenizer=build_tokenizer(run_config.tokenizer),
        ar=ar,
        projectors=Projectors(run_config.ar.dim, run_config.gear.projector_dim, [tiny.TEACHER_DIM]),
        targets=tiny.FixedTargets(),  # type: ignore[arg-type]
    )
