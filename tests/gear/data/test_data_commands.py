from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from gear.cli.data import data
from gear.data.digits import COLOURS, PHRASINGS, CaptionedDigitsSource, caption, is_unseen
from tests.gear.data import make


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEAR_CACHE", str(tmp_path / "cache"))


def said(*arguments: str) -> str:
    result = CliRunner().invoke(data, arguments)
    assert result.exit_code == 0, result.output
    return result.output


def test_indexing_counts_what_can_and_cannot_be_used(tmp_path: Path) -> None:
    make.gpic_shard(tmp_path / "a.tar", 3)
    make.tar(tmp_path / "b.tar", {"1.json": b"{}"})
    output = said("index", str(tmp_path))
    assert "2 shards, 3 usable samples" in output
    assert "1 samples cannot be used: it has no image" in output


def test_looking_shows_kind_number_and_captions(tmp_path: Path) -> None:
    make.gpic_shard(tmp_path / "a.tar", 3)
    output = said("look", str(tmp_path))
    assert output.startswith("gpic: 3 samples") and "2: 'picture 2'" in output


def test_a_place_without_data_is_refused_in_one_sentence(tmp_path: Path) -> None:
    result = CliRunner().invoke(data, ["look", str(tmp_path)])
    assert result.exit_code == 2 and "holds no known kind of training data" in result.output


def test_the_digits_are_written_with_their_captions(tmp_path: Path) -> None:
    said("digits", "--out", str(tmp_path))
    with np.load(tmp_path / "train.npz", allow_pickle=False) as train:
        colour, digit = list(COLOURS)[train["colour_ids"][0]], int(train["labels"][0])
        assert train["captions"][0] == caption(digit, int(train["colour_ids"][0])) and colour in train["captions"][0]
    assert json.loads((tmp_path / "digits.json").read_text())["phrasings"] == list(PHRASINGS)


def test_captions_name_digit_and_colour_in_every_phrasing() -> None:
    assert caption(7, 0) == "a photo of a red seven"
    assert caption(8, 1) == "a photo of an orange eight"
    for phrasing in range(len(PHRASINGS)):
        assert "seven" in caption(7, 0, phrasing) and "red" in caption(7, 0, phrasing)


def test_one_colour_of_each_digit_is_held_out_and_every_colour_at_least_once() -> None:
    digits, colours = np.divmod(np.arange(80), 8)
    unseen = is_unseen(digits, colours)
    assert np.array_equal(np.bincount(digits[unseen]), np.ones(10)) and set(colours[unseen]) == set(range(8))
    source = CaptionedDigitsSource()
    shown = {source.item(i, np.random.default_rng(0)).caption for i in range(len(source))}
    for digit, colour in zip(digits[unseen], colours[unseen], strict=True):
        assert not any(caption(int(digit), int(colour), phrasing) in shown for phrasing in range(len(PHRASINGS)))


def test_the_phrasing_is_drawn_by_the_given_generator() -> None:
    source = CaptionedDigitsSource()
    captions = [source.item(0, np.random.default_rng(seed)).caption for seed in range(30)]
    assert len(set(captions)) == len(PHRASINGS)
    assert captions == [source.item(0, np.random.default_rng(seed)).caption for seed in range(30)]


def test_looking_names_classes_and_says_what_training_would_refuse(tmp_path: Path) -> None:
    for split in ("train", "val"):
        (tmp_path / "folders" / split).mkdir(parents=True)
        (tmp_path / "folders" / split / "0.png").write_bytes(make.encoded(0, (9, 9), "png"))
    output = said("look", str(tmp_path / "folders"))
    assert "2 classes: train, val\n" in output and "class 1 (val)" in output
    assert "note: the classes train, val look like the splits of a data set" in output
    make.tar(tmp_path / "a.tar", {"1.jpg": make.jpeg(), "1.json": b'{"text": "a cat"}'})
    assert "has no field `caption` (only text); name it so" in said("look", str(tmp_path / "a.tar"))
