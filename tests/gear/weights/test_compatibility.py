"""A tokenizer and an AR model that do not match are refused before anything is drawn."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from gear.ar import ar_config
from gear.ar.checkpoints import build_ar
from gear.tokenizers import TOKENIZERS, build_tokenizer
from gear.weights import check_own_codes, check_pair, open_model
from harness.contract.errors import UserError
from tests.gear.small_models import ARS, weights
from tests.gear.small_models import TOKENIZERS as SMALL

VQ, AR = TOKENIZERS["VQ-16"], ar_config("LlamaGen-B")


def test_what_belongs_together_passes():
    check_pair(VQ, AR, trained_with=VQ, image_size=256)
    check_pair(build_tokenizer(SMALL["vq"]), build_ar(ARS["c2i"]))
    check_pair(TOKENIZERS["LFQ-16"], AR)
    check_pair(VQ, AR, trained_with=dataclasses.replace(VQ, entropy_loss_ratio=1.0))  # a loss weight


@pytest.mark.parametrize(
    ("tokenizer", "options", "words"),
    [
        (dataclasses.replace(VQ, codebook_size=1024), {}, "has 16384 codes but the tokenizer has 1024; give"),
        (TOKENIZERS["IBQ-16"], {"trained_with": VQ}, "a tokenizer of family vq, but this one has ibq"),
        (dataclasses.replace(VQ, codebook_embed_dim=32), {"trained_with": VQ}, "code dimension 8, but this one has 32"),
        (
            dataclasses.replace(TOKENIZERS["VQ-8"], codebook_size=16_384),
            {"trained_with": VQ},
            "downsample factor 16, but this one has 8",
        ),
        (VQ, {"image_size": 384}, "draws 16 x 16 tokens, 256 px with this tokenizer, but 384 px were asked for"),
        (TOKENIZERS["VQ-8"], {"image_size": 256}, "128 px with this tokenizer"),
    ],
)  # fmt: skip
def test_what_does_not_is_one_sentence_with_the_fix(tokenizer, options, words):
    with pytest.raises(UserError) as refusal:
        check_pair(tokenizer, AR, **options)
    assert words in str(refusal.value) and "give" in str(refusal.value)


def test_a_tokenizer_of_several_codes_per_token_is_refused():
    ar = ar_config("LlamaGen-B", vocab_size=256)
    with pytest.raises(UserError, match="4 codes per token, which no AR model here supports; give one"):
        check_pair(TOKENIZERS["GLFQ-16"], ar)


def saved(path, **parts):
    torch.save(parts, path)
    return open_model(path)


@pytest.mark.parametrize("family", ["vq", "lfq", "ibq"])
def test_the_tokenizer_of_the_models_own_file_decides(family, tmp_path, caplog):
    live, averaged, other = (weights(SMALL[family], seed) for seed in (1, 2, 3))
    model = saved(tmp_path / "ar.pt", vq=live, vq_ema=averaged, ar=weights(ARS["c2i"], 4))
    half = {key: value.bfloat16() for key, value in averaged.items()}
    finetuned = {key: value + key.startswith("decoder.") for key, value in live.items()}
    for name, fine in {"live": live, "averaged": averaged, "half": half, "finetuned": finetuned}.items():
        check_own_codes(model, saved(tmp_path / f"{name}.pt", vq=fine))
    assert not caplog.text
    stranger = saved(tmp_path / "other.pt", vq=other)
    with pytest.raises(UserError, match=r"the tokenizer of .*other\.pt is not the one that .*ar\.pt was trained with"):
        check_own_codes(model, stranger)
    check_own_codes(saved(tmp_path / "alone.pt", ar=weights(ARS["c2i"], 4)), stranger)
    assert "alone.pt does not hold the tokenizer that it was trained with" in caplog.text
