"""The configuration refuses nonsense in the user's words."""

from __future__ import annotations

import pytest

from gear.ar import AR_SIZES, ARConfig, ar_config

TINY = {"dim": 32, "n_layer": 2, "n_head": 4}


@pytest.mark.parametrize(
    ("name", "head_dim", "ffn_dim"),
    [
        ("LlamaGen-S", 32, 1024),
        ("LlamaGen-B", 64, 2048),
        ("LlamaGen-L", 64, 2816),
        ("LlamaGen-XL", 64, 3584),
        ("LlamaGen-XXL", 64, 4096),
        ("LlamaGen-XXXL", 64, 6912),
        ("LlamaGen-3B", 100, 8704),
    ],
)
def test_registered_sizes_have_the_published_widths(name, head_dim, ffn_dim):
    config = ar_config(name)
    assert (config.head_dim, config.ffn_dim) == (head_dim, ffn_dim)


def test_overrides_replace_single_fields():
    config = ar_config("LlamaGen-B", vocab_size=100, block_size=576)
    assert (config.n_layer, config.vocab_size, config.grid_side, config.max_sequence) == (12, 100, 24, 577)


def test_the_ffn_multiplier_applies_before_rounding_up():
    assert ARConfig(**TINY, multiple_of=8, ffn_dim_multiplier=1.3).ffn_dim == 112  # 85 -> 110 -> 112


def test_drop_path_grows_linearly_and_is_off_for_a_single_block():
    config = ARConfig(**{**TINY, "n_layer": 5}, drop_path_rate=0.2)
    assert [config.drop_path_of(layer) for layer in range(5)] == pytest.approx([0.0, 0.05, 0.1, 0.15, 0.2])
    assert ARConfig(**{**TINY, "n_layer": 1}, drop_path_rate=0.2).drop_path_of(0) == 0.0


def test_a_misspelt_size_is_answered_with_the_near_one():
    with pytest.raises(ValueError, match="did you mean LlamaGen-XL") as refusal:
        ar_config("LlamaGenXL")
    assert all(name in str(refusal.value) for name in AR_SIZES)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"dim": 30}, "divisible by n_head"),
        ({"dim": 24}, "head width by 4"),
        ({"block_size": 10}, "not a square"),
        ({"n_kv_head": 3}, "multiple of n_kv_head"),
        ({"cls_token_num": 2}, "exactly one slot"),
        ({"num_classes": 0}, "at least one class"),
        ({"class_dropout_prob": 1.5}, "class_dropout_prob"),
        ({"resid_dropout_p": -0.1}, "resid_dropout_p"),
        ({"vocab_size": 0}, "at least 1"),
    ],
)
def test_nonsense_is_refused_by_name(fields, words):
    with pytest.raises(ValueError, match=words):
        ARConfig(**{**TINY, **fields})
