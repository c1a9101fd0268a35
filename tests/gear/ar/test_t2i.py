"""The text-to-image AR: text stream, caption mask, null caption."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

import pytest
import torch

from gear.ar import (
    TEXT_AR_SIZES,
    ARConfig,
    ClassConditionalAR,
    TextARConfig,
    TextCondition,
    TextToImageAR,
    text_ar_config,
)
from gear.sampling.draws import PerImageDraw
from gear.sampling.rollout import SamplingOptions, roll_out

SPEC_DIR = Path(__file__).parents[4] / "shared/spec/state-dicts"

# sha256 over "key: AxB" lines in registration order, and the parameter count, measured on the reference (C = 2048).
PUBLISHED = {
    "LlamaGen-S": ("7168c082a858cc34b2d2547dc72e91fe59f3cb2b19ee8b0e491c1ad2a527341a", 37_120_896),
    "LlamaGen-B": ("50cded1e1aee732f9e801dec5aaa39a763d261aa7870d214e543274db326e6b8", 121_722_624),
    "LlamaGen-L": ("c63ca62cc8dcff6f8cbcfcead4ef56fa57a9ac228da18982396c4015d54a6d0f", 378_594_304),
    "LlamaGen-XL": ("143451353cf3f2ab81871114d33ed96adaefa77b97389dbfb4744550a58c1a8b", 856_336_640),
    "LlamaGen-1B": ("aa48a991dce4af7a4b73ed48eb114844645eb4ec643cca8660355277ef255821", 1_047_659_040),
    "LlamaGen-XXL": ("9511b652377936eb01abea91f2813dccef82335cf2344c5c83174aca38c29dad", 1_565_959_680),
    "LlamaGen-XXXL": ("b0be1a5b8080cc3575a165968471686b1ac04247216e3616d3cfcc36d0476c59", 4_321_733_120),
}

TINY = {
    "dim": 32, "n_layer": 3, "n_head": 4, "multiple_of": 16, "vocab_size": 11, "block_size": 9, "init_std": 0.2,
}  # fmt: skip
TEXT = {"cls_token_num": 4, "caption_dim": 6}


def tiny(**overrides) -> TextToImageAR:
    torch.manual_seed(0)
    ar = TextToImageAR(TextARConfig(**{**TINY, **TEXT, **overrides}))
    torch.nn.init.normal_(ar.output.weight, std=0.2)
    return ar.eval()


@pytest.fixture
def captions() -> TextCondition:
    """A full, a short and an empty caption."""
    torch.manual_seed(1)
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]])
    null = TextCondition(features=torch.randn(1, 4, 6), mask=torch.zeros(1, 4, dtype=torch.long))
    return TextCondition(features=torch.randn(3, 4, 6), mask=mask, null=null)


@pytest.fixture
def tokens() -> torch.Tensor:
    return torch.randint(0, 11, (3, 8), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", PUBLISHED)
def test_keys_shapes_and_order_equal_the_reference(name):
    with torch.device("meta"):
        ar = TextToImageAR(text_ar_config(name, caption_dim=2048))
    shapes = {key: list(tensor.shape) for key, tensor in ar.state_dict().items()}
    lines = "".join(f"{key}: {'x'.join(map(str, shape))}\n" for key, shape in shapes.items())
    assert (hashlib.sha256(lines.encode()).hexdigest(), sum(map(math.prod, shapes.values()))) == PUBLISHED[name]
    spec_path = SPEC_DIR / f"t2i-{name}.json"
    if spec_path.exists():
        assert list(shapes.items()) == list(json.loads(spec_path.read_text())["state_dict"].items())


def test_every_registered_size_is_pinned():
    assert set(PUBLISHED) == set(TEXT_AR_SIZES)


@pytest.mark.parametrize(("option", "resolved"), [(-1, 1), (0, 0), (2, 2), (99, 3)])
def test_the_number_of_double_stream_blocks_can_be_chosen(option, resolved):
    ar = tiny(n_double_stream_layers=option)
    assert ar.config.num_double_stream == resolved
    assert sum("wqkv_text" in key for key in ar.state_dict()) == resolved


@pytest.mark.parametrize("text_attn", ["causal", "prefix"])
def test_cached_decoding_equals_the_full_forward_for_every_caption_length(text_attn, captions, tokens):
    ar = tiny(text_attn=text_attn)
    full, _ = ar(tokens, captions)
    cache = ar.new_cache(3)
    steps = [ar.prefill(captions, cache), *(ar.decode(tokens[:, k], 4 + k, cache) for k in range(8))]
    torch.testing.assert_close(ar.logits_of(torch.stack(steps, dim=1)), full[:, 3:])


def test_without_a_caption_mask_attention_is_causal_in_both_modes_and_paths(captions, tokens):
    unmasked = TextCondition(features=captions.features)
    causal, _ = tiny()(tokens, unmasked)
    prefix = tiny(text_attn="prefix")
    torch.testing.assert_close(prefix(tokens, unmasked)[0], causal)
    cache = prefix.new_cache(3)
    prefix.prefill(captions, cache)  # what an earlier batch left must not mask this one
    torch.testing.assert_close(prefix.logits_of(prefix.prefill(unmasked, cache)), causal[:, 3])
    torch.testing.assert_close(prefix.logits_of(prefix.decode(tokens[:, 0], 4, cache)), causal[:, 4])


def test_padding_reaches_an_image_token_only_through_the_first_slot(captions, tokens):
    ar = tiny()
    changed = captions.features.clone()
    changed[1, 2] += 1.0  # padding of the short caption
    before = ar(tokens, captions)[0]
    after = ar(tokens, TextCondition(features=changed, mask=captions.mask))[0]
    torch.testing.assert_close(after[:, 3:], before[:, 3:])


@pytest.mark.parametrize(("text_attn", "sees_later_text"), [("causal", False), ("prefix", True)])
def test_only_a_prefix_sees_later_text(text_attn, sees_later_text, captions):
    mask = tiny(text_attn=text_attn).attention_mask(captions, 7)
    assert bool(mask[0, 0, 0, 3]) is sees_later_text
    assert mask[0, 0, 4:, :4].all()  # image tokens see the whole caption
    assert not mask[0, 0, :4, 4:].any()  # and text never an image token
    assert torch.equal(mask[2, 0, 4:, :4], torch.zeros(3, 4, dtype=torch.bool))  # an empty caption is not seen
    assert mask.diagonal(dim1=-2, dim2=-1).all()


def test_a_copied_text_stream_acts_like_the_image_stream(captions, tokens):
    ar = tiny(n_double_stream_layers=3)
    with torch.no_grad():
        for block in ar.layers:
            block.attention_norm.weight.uniform_(0.5, 1.5)
    ar.copy_image_stream_to_text()
    single = tiny(n_double_stream_layers=0)
    single.load_state_dict({key: value for key, value in ar.state_dict().items() if "_text" not in key})
    torch.testing.assert_close(ar(tokens, captions)[0], single(tokens, captions)[0])


def test_a_class_conditional_checkpoint_fits_except_for_text_stream_and_condition():
    ours = tiny().state_dict().keys()
    theirs = ClassConditionalAR(ARConfig(**TINY)).state_dict().keys()
    assert theirs - ours == {"cls_embedding.embedding_table.weight"}
    assert all("_text" in key or "cap_proj" in key for key in ours - theirs)


def test_training_logits_start_at_the_slot_that_predicts_the_first_token(captions, tokens):
    ar = tiny(token_dropout_p=0.0, resid_dropout_p=0.0, ffn_dropout_p=0.0)
    full, tapped = ar(tokens, captions, tap_layer=2)
    sliced, still_whole = ar.train()(tokens, captions, tap_layer=2)
    torch.testing.assert_close(sliced, full[:, 3:])
    assert tapped.shape == still_whole.shape == (3, 12, 32)
    assert ar.predicting(tapped).shape == (3, 9, 32)


def test_guidance_adds_the_empty_caption_to_every_row(captions):
    both = tiny().with_null(captions)
    assert len(both) == 6
    assert torch.equal(both.features[3:], captions.null.features.expand(3, -1, -1))
    assert both.mask[3:].sum() == 0
    with pytest.raises(ValueError, match="empty caption"):
        tiny().with_null(TextCondition(features=captions.features, mask=captions.mask))


def test_tokens_do_not_depend_on_the_batch_size(captions):
    ar, options = tiny(), SamplingOptions(cfg_scale=2.0, top_k=8)
    whole = roll_out(ar, captions, num_tokens=9, options=options, draw=PerImageDraw([5, 6, 7], 9))
    for row in range(3):
        one = TextCondition(
            features=captions.features[row : row + 1], mask=captions.mask[row : row + 1], null=captions.null
        )
        alone = roll_out(ar, one, num_tokens=9, options=options, draw=PerImageDraw([5 + row], 9))
        assert torch.equal(alone[0], whole[row])


def test_misuse_is_refused_with_a_message(captions, tokens):
    ar = tiny()
    with pytest.raises(ValueError, match="do not fill 4 slots of width 6"):
        ar(tokens, TextCondition(features=torch.zeros(3, 5, 6)))
    with pytest.raises(ValueError, match="empty string"):
        ar(tokens, captions, drop_ids=torch.ones(3))
    with pytest.raises(ValueError, match="did you mean LlamaGen-1B"):
        text_ar_config("LlamaGen1B")
    for fields, words in [
        ({"text_attn": "full"}, "causal, prefix"),
        ({"caption_dim": 0}, "caption_dim"),
        ({"n_double_stream_layers": -2}, "0 means none"),
    ]:
        with pytest.raises(ValueError, match=words):
            tiny(**fields)
