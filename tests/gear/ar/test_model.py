"""The class-conditional AR against the properties of the released models."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from gear.ar import AR_SIZES, ARConfig, ClassConditionalAR, ar_config

SPEC_DIR = Path(__file__).parents[4] / "shared/spec/state-dicts"

# sha256 over "key: AxB" lines in registration order, and the parameter count, measured on the reference.
PUBLISHED = {
    "LlamaGen-S": ("c3353a0fa70b07c7bfa0c2e1d3f7fdbf73034a32feb1f2c39d7c0ce61fdc3878", 34_210_560),
    "LlamaGen-B": ("6b8ee43755a21fafd227c340272f382148e82a0cf05e33b9b52a69fa4df99504", 110_888_448),
    "LlamaGen-L": ("f2ca6705a068d21a5aaf83d58bab71f6ab19a115679d75204fb878f0ef7ece45", 342_910_976),
    "LlamaGen-XL": ("ef50934f7bfecfbe79ae4dc9920b9fe2b00b53f818879b063bb304b1c37f503e", 774_699_520),
    "LlamaGen-XXL": ("06484544b83e21ef11fed86176cefa5dd06b4c2a3648b17264c3e48524c2a1ef", 1_410_972_672),
    "LlamaGen-XXXL": ("6e80e8c4654061634a8e408a61ea75101c6c57839f7fdc8381ecaabaa4006176", 3_893_027_840),
    "LlamaGen-3B": ("94502165b9ac0a931dbdf6d4dcb762cb8bba28f4011a5c959741ad40e24f48ac", 3_096_659_200),
}
SPEC_FILES = {name: f"c2i-{name}.json" for name in PUBLISHED} | {"LlamaGen-3B": "c2i-original-GPT-3B.json"}


def tiny(**overrides) -> ClassConditionalAR:
    """A model of two blocks whose output head is not zero, in eval mode."""
    sizes = {"dim": 32, "n_layer": 3, "n_head": 4, "multiple_of": 16, "vocab_size": 11, "block_size": 9}
    torch.manual_seed(0)
    ar = ClassConditionalAR(ARConfig(**{**sizes, "num_classes": 5, "init_std": 0.2, **overrides}))
    torch.nn.init.normal_(ar.output.weight, std=0.2)
    return ar.eval()


@pytest.fixture
def tokens() -> torch.Tensor:
    return torch.randint(0, 11, (4, 8), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def labels() -> torch.Tensor:
    return torch.tensor([0, 3, 4, 5])  # the last is the null class


@pytest.mark.parametrize("name", PUBLISHED)
def test_keys_shapes_and_order_equal_the_released_models(name):
    with torch.device("meta"):
        ar = ClassConditionalAR(ar_config(name))
    shapes = {key: list(tensor.shape) for key, tensor in ar.state_dict().items()}
    lines = "".join(f"{key}: {'x'.join(map(str, shape))}\n" for key, shape in shapes.items())
    assert (hashlib.sha256(lines.encode()).hexdigest(), sum(map(math.prod, shapes.values()))) == PUBLISHED[name]
    spec_path = SPEC_DIR / SPEC_FILES[name]
    if spec_path.exists():
        assert list(shapes.items()) == list(json.loads(spec_path.read_text())["state_dict"].items())


def test_every_registered_size_is_pinned():
    assert set(PUBLISHED) == set(AR_SIZES)


def test_one_hot_input_equals_lookup(tokens, labels):
    ar = tiny()
    hard, _ = ar(tokens, labels)
    soft, _ = ar(F.one_hot(tokens, 11).float(), labels)
    torch.testing.assert_close(soft, hard)


def test_conditioning_slot_has_zero_query_and_key(labels):
    ar = tiny()
    cache = ar.new_cache(4)
    ar.prefill(labels, cache)
    assert not cache.keys[:, :, :, 0].any()
    assert cache.values[:, :, :, 0].any()


def test_cached_decoding_equals_the_full_forward(tokens, labels):
    ar = tiny()
    full, _ = ar(tokens, labels)
    cache = ar.new_cache(4, 9)
    steps = [ar.prefill(labels, cache)]
    steps += [ar.decode(tokens[:, k], 1 + k, cache) for k in range(8)]
    torch.testing.assert_close(ar.logits_of(torch.stack(steps, dim=1)), full)


def test_a_cache_can_be_reused_for_a_second_batch_without_clearing(tokens, labels):
    ar = tiny()
    used, fresh = ar.new_cache(4), ar.new_cache(4)
    ar.prefill(labels, used)
    for k in range(8):
        ar.decode(tokens[:, k], 1 + k, used)
    again = [ar.prefill(labels.flip(0), used), ar.decode(tokens[:, 3], 1, used)]
    first = [ar.prefill(labels.flip(0), fresh), ar.decode(tokens[:, 3], 1, fresh)]
    torch.testing.assert_close(again, first, rtol=0, atol=0)


def test_grouped_key_value_heads_decode_like_the_full_forward(tokens, labels):
    ar = tiny(n_kv_head=2)
    full, _ = ar(tokens, labels)
    cache = ar.new_cache(4)
    assert cache.keys.shape == (3, 4, 2, 16, 8)  # 1 + 9 slots, rounded up
    steps = [ar.prefill(labels, cache), *(ar.decode(tokens[:, k], 1 + k, cache) for k in range(8))]
    torch.testing.assert_close(ar.logits_of(torch.stack(steps, dim=1)), full)


def test_a_token_never_sees_a_later_one(tokens, labels):
    ar = tiny()
    changed = tokens.clone()
    changed[:, 5:] = (changed[:, 5:] + 1) % 11
    before, after = ar(tokens, labels)[0], ar(changed, labels)[0]
    torch.testing.assert_close(before[:, :6], after[:, :6])
    assert not torch.allclose(before[:, 6:], after[:, 6:])


def test_the_early_exit_gives_the_tap_of_the_full_forward_and_its_gradient(tokens, labels):
    ar = tiny()
    soft = F.one_hot(tokens, 11).float()
    grads, taps = [], []
    for run in (lambda x: ar(x, labels, tap_layer=2)[1], lambda x: ar.tap(x, labels, 2)):
        x = soft.clone().requires_grad_()
        taps.append(run(x))
        taps[-1].square().sum().backward()
        grads.append(x.grad)
    torch.testing.assert_close(taps[0], taps[1], rtol=0, atol=0)
    torch.testing.assert_close(grads[0], grads[1])


def test_the_slots_that_predict_start_at_the_conditioning(tokens, labels):
    ar = tiny()
    logits, hidden = ar(tokens, labels, tap_layer=3)
    predicting = ar.predicting(hidden)
    assert predicting.shape == (4, 9, 32)
    torch.testing.assert_close(ar.output(ar.norm(predicting)), logits)


def test_the_first_cross_entropy_is_ln_k(tokens, labels):
    ar = ClassConditionalAR(ARConfig(dim=32, n_layer=2, n_head=4, vocab_size=11, block_size=9, num_classes=5))
    logits, _ = ar(tokens, labels)
    assert not logits.any()
    assert F.cross_entropy(logits[:, :8].flatten(0, 1), tokens.flatten()).item() == pytest.approx(math.log(11))


def test_initial_weights_have_the_configured_spread():
    ar = ClassConditionalAR(ARConfig(dim=128, n_layer=1, n_head=4, vocab_size=500, block_size=4, init_std=0.02))
    for weight in (
        ar.tok_embeddings.weight,
        ar.layers[0].attention.wqkv.weight,
        ar.cls_embedding.embedding_table.weight,
    ):
        assert weight.std().item() == pytest.approx(0.02, rel=0.03)


def test_activation_checkpointing_changes_no_gradient(tokens, labels):
    ar = tiny().train()
    grads = []
    for recompute in (False, True):
        ar.activation_checkpointing = recompute
        ar.zero_grad()
        torch.manual_seed(3)  # dropout is on: the recomputation has to draw the same masks
        logits, hidden = ar(tokens, labels, tap_layer=2)
        (logits.square().mean() + hidden.square().mean()).backward()
        grads.append([parameter.grad for parameter in ar.parameters()])
    torch.testing.assert_close(grads[0], grads[1])


def test_dropped_labels_become_the_null_class(labels):
    ar = tiny()
    null = ar.embed_condition(torch.full((4,), 5))
    forced = ar.embed_condition(labels, drop_ids=torch.tensor([1, 0, 1, 0]))
    plain = ar.embed_condition(labels)
    torch.testing.assert_close(forced, torch.stack([null[0], plain[1], null[2], plain[3]]))


def test_labels_are_dropped_in_training_at_the_adjustable_rate():
    ar = tiny().train()
    labels, null = torch.zeros(4000, dtype=torch.long), ar.cls_embedding.embedding_table.weight[5]
    torch.manual_seed(0)
    for rate in (0.1, 0.5, 0.0, 1.0):
        ar.label_dropout = rate
        dropped = (ar.embed_condition(labels)[:, 0] == null).all(dim=1).float().mean().item()
        assert dropped == pytest.approx(rate, abs=0.03)
    assert (ar.eval().embed_condition(labels)[:, 0] != null).any(dim=1).all()


def test_a_model_without_null_class_refuses_guidance_and_label_dropout(labels):
    ar = tiny(class_dropout_prob=0.0)
    assert len(ar.cls_embedding.embedding_table.weight) == 5
    with pytest.raises(ValueError, match="no null class"):
        ar.label_dropout = 0.1
    with pytest.raises(ValueError, match="cfg scale 1"):
        ar.with_null(labels)


def test_drop_path_drops_whole_samples_and_keeps_the_mean():
    ar = tiny(drop_path_rate=0.5)
    assert [block.drop_path.rate for block in ar.layers] == [0.0, 0.25, 0.5]
    dropped = ar.layers[2].drop_path.train()(torch.ones(2000, 3, 2))
    per_sample = dropped.flatten(1)
    assert set(per_sample.unique().tolist()) == {0.0, 2.0}
    assert (per_sample == per_sample[:, :1]).all()
    assert per_sample.mean().item() == pytest.approx(1.0, abs=0.1)


def test_the_rotary_table_follows_the_device_but_not_the_dtype_nor_the_state_dict():
    with torch.device("meta"):
        ar = ClassConditionalAR(ARConfig(dim=32, n_layer=1, n_head=4, vocab_size=11, block_size=9))
    assert ar.rotary_table.device.type == "meta"
    ar = ar.to_empty(device="cpu").to(torch.bfloat16)
    assert ar.rotary_table.dtype == torch.float32
    assert torch.equal(ar.rotary_table, tiny().rotary_table)
    assert not any("rotary" in key for key in ar.state_dict())


def test_half_precision_weights_give_float32_logits(tokens, labels):
    ar = tiny().to(torch.bfloat16)
    logits, _ = ar(tokens, labels)
    assert logits.dtype == torch.float32
    assert ar.new_cache(4).keys.dtype == torch.bfloat16


def test_double_precision_is_kept(tokens, labels):
    single, double = tiny(), tiny().double()
    exact, _ = double(tokens, labels)
    assert exact.dtype == torch.float64
    torch.testing.assert_close(single(tokens, labels)[0].double(), exact, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bad", [torch.zeros(4, 8), torch.zeros(4, 8, 11, dtype=torch.long), torch.zeros(4)])
def test_tokens_of_another_kind_are_refused(bad, labels):
    with pytest.raises(ValueError, match="ids"):
        tiny()(bad, labels)


def test_misuse_is_refused_with_a_message(tokens, labels):
    ar = tiny()
    with pytest.raises(ValueError, match="blocks 1 to 3"):
        ar(tokens, labels, tap_layer=4)
    with pytest.raises(ValueError, match="blocks 1 to 3"):
        ar.tap(tokens, labels, 0)
    with pytest.raises(ValueError, match="model takes at most 9"):
        ar(torch.zeros(4, 10, dtype=torch.long), labels)
    with pytest.raises(ValueError, match="cannot take 4 rows"):
        ar.prefill(labels, ar.new_cache(8))
    with pytest.raises(ValueError, match="eval mode"):
        ar.train().prefill(labels, ar.new_cache(4))
