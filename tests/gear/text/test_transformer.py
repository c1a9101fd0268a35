from __future__ import annotations

from pathlib import Path

import pytest
import torch

from gear.text import CachingEncoder, TextConfig, build_text_encoder
from gear.text.base import MAX_CHARACTERS
from harness.contract.errors import MissingAsset, UserError
from harness.contract.fields import build
from tests.gear import tiny_text


def test_captions_are_padded_on_the_right_and_cut_to_the_slots() -> None:
    encoder = tiny_text.encoder()
    encoded = encoder.encode(["abc", "abcdef", "abcdefgh", ""])
    assert encoded.features.shape == (4, 6, 16) and encoded.mask is not None
    assert encoded.mask.int().tolist() == [[1, 1, 1, 0, 0, 0], [1] * 6, [1] * 6, [0] * 6]
    assert torch.equal(encoded.features[1], encoded.features[2]), "the same six tokens"
    assert encoder.num_cut == 1, "one caption did not fit; the one that just fits is not counted"


def test_features_are_the_last_layers_states_after_the_final_norm() -> None:
    encoded = tiny_text.encoder().encode(["abc"])
    ids = torch.tensor([tiny_text.tokenizer()("abc")["input_ids"]])
    with torch.no_grad():
        states = tiny_text.qwen3()(input_ids=ids, output_hidden_states=True)
    assert torch.allclose(encoded.features[:, :3], states.hidden_states[-1], atol=1e-6)
    assert not encoded.features.requires_grad


def test_the_text_does_not_depend_on_what_pads_it() -> None:
    longer = TextConfig(name="qwen3", dim=16, max_length=12)
    short, long = tiny_text.encoder().encode(["abc"]), tiny_text.encoder(longer).encode(["abc"])
    assert torch.allclose(short.features[:, :3], long.features[:, :3], atol=1e-6)


def test_the_empty_caption_of_qwen_has_no_token_and_finite_features() -> None:
    null = tiny_text.encoder().null()
    assert null.mask is not None and not null.mask.any()
    assert null.features.isfinite().all()


def test_very_long_captions_are_cut_before_they_are_tokenized_and_counted() -> None:
    wide = TextConfig(name="qwen3", dim=16, max_length=MAX_CHARACTERS + 10)
    encoder = tiny_text.encoder(wide)
    seen: list[int] = []
    tokens = encoder.tokenizer

    def spy(captions: list[str], **options: object) -> object:
        seen.extend(len(caption) for caption in captions)
        return tokens(captions, **options)

    encoder.tokenizer = spy
    _, mask = encoder._tokens(["x" * (MAX_CHARACTERS + 1)])
    assert seen == [MAX_CHARACTERS] and int(mask.sum()) == MAX_CHARACTERS and encoder.num_cut == 1


def test_another_width_than_configured_is_refused() -> None:
    with pytest.raises(UserError, match=r"gives 16 channels but text\.dim is 2048; .*--set text\.dim=16"):
        tiny_text.encoder(TextConfig(name="qwen3"))


def test_a_left_padding_tokenizer_is_made_to_pad_on_the_right() -> None:
    tokenizer = tiny_text.tokenizer()
    tokenizer.padding_side = "left"
    encoded = tiny_text.encoder().encode(["abc"])
    assert encoded.mask is not None and encoded.mask.int().tolist() == [[1, 1, 1, 0, 0, 0]]


def test_a_folder_of_weights_is_loaded_as_it_was_saved(tmp_path: Path) -> None:
    tiny_text.qwen3().save_pretrained(tmp_path)
    tiny_text.tokenizer().save_pretrained(tmp_path)
    loaded = build_text_encoder(TextConfig(name="qwen3", source=str(tmp_path), dim=16, max_length=6))
    ours, theirs = loaded.encode(["abc", ""]), tiny_text.encoder().encode(["abc", ""])
    assert torch.equal(ours.features, theirs.features)
    assert ours.mask is not None and theirs.mask is not None and torch.equal(ours.mask, theirs.mask)
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters()) and not loaded.model.training


def test_weights_that_are_not_here_name_the_command_that_fetches_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(MissingAsset, match=r"'Qwen/Qwen3-1\.7B' is not on this machine; fetch it with: harness"):
        build_text_encoder(TextConfig())
    with pytest.raises(MissingAsset, match="cannot be loaded as a text encoder"):
        build_text_encoder(TextConfig(source=str(tmp_path)))


def test_minilm_comes_from_its_package() -> None:
    encoder = build_text_encoder(TextConfig(name="minilm", max_length=10))
    encoded = encoder.encode(["a red seven", "a crimson 7", "the parliament of Norway"])
    assert encoded.features.shape == (3, 10, 384)
    null = encoder.null()
    assert null.mask is not None and int(null.mask.sum()) == 2, "[CLS] and [SEP]"
    assert encoded.mask is not None
    weights = encoded.mask[..., None].float()
    means = torch.nn.functional.normalize((encoded.features * weights).sum(1) / weights.sum(1), dim=-1)
    assert means[0] @ means[1] > means[0] @ means[2] + 0.2, "these are real weights"


def test_a_cached_caption_equals_one_encoded_alone_to_the_last_bit() -> None:
    plain, remembering = tiny_text.encoder(), CachingEncoder(tiny_text.encoder())
    first = remembering.encode(["abc", "de", "abc"])
    alone = plain.encode(["abc"])
    assert torch.equal(first.features[0], alone.features[0]) and torch.equal(first.features[2], alone.features[0])
    assert torch.equal(remembering.encode(["de"]).features[0], first.features[1])


def test_the_least_recently_used_captions_are_dropped_from_the_cache() -> None:
    row_bytes = 6 * 16 * 4
    remembering = CachingEncoder(tiny_text.encoder(), max_bytes=2 * row_bytes)
    for caption in ("a", "b", "a", "c"):
        remembering.encode([caption])
    assert list(remembering._known) == ["a", "c"]


def test_the_empty_caption_of_a_run_replaces_the_encoders() -> None:
    stored = tiny_text.encoder().encode(["x"])
    assert CachingEncoder(tiny_text.encoder(), null=stored).null() is stored


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"max_length": 0}, "max_length"),
        ({"caption_dropout": 1.0}, "caption_dropout"),
        ({"name": "t5"}, "choose one of"),
    ],
)
def test_settings_that_make_no_sense_are_refused(fields: dict[str, object], problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        build(TextConfig, fields, "the configuration", path="text")
