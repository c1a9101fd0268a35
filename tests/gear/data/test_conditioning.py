"""Data without the condition that a stage learns is refused when it is opened, with what to do about it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from PIL import Image

from gear.data.conditioning import class_names, require_condition, splits_note
from gear.data.config import DataConfig
from gear.data.sources import ImageSource, open_source
from harness.contract.errors import UserError
from tests.gear.data import make


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEAR_CACHE", str(tmp_path / "cache"))


def folders(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(root / name / "0.png")
    return root


def opened(place: Path | str, kind: str = "auto", num_classes: int = 10) -> ImageSource:
    return open_source(DataConfig(data_dir=str(place), image_size=8, num_classes=num_classes, kind=kind))  # type: ignore[arg-type]


def shard(path: Path, order: str = "together", **texts: str) -> Path:
    """Five images, each with a text member per keyword."""
    images = {f"{number}.jpg": make.jpeg(number) for number in range(5)}
    others = {f"{number}.{suffix}": text.encode() for number in range(5) for suffix, text in texts.items()}
    members = images | others
    names = sorted(members) if order == "together" else list(members)
    return make.tar(path, {name: members[name] for name in names})


@pytest.mark.parametrize(
    ("texts", "order", "kind", "why"),
    [
        ({"json": '{"text": "a cat"}'}, "together", "auto", r"no field `caption` \(only text\); name it so"),
        ({"json": '{"caption": null}'}, "together", "auto", "its captions are empty"),
        ({"json": '{"caption": "  "}'}, "together", "auto", "its captions are empty"),
        ({"json": "[1]"}, "together", "auto", "no sample can be used, the first because: .*its JSON cannot be read"),
        ({"json": '{"caption": 5}'}, "together", "auto", "its caption is not text but int"),
        ({"txt": ""}, "together", "auto", "its captions are empty"),
        ({"cls": "3"}, "together", "auto", r"no image has a \.txt after it; put a \.txt, or a \.json with `caption`"),
        ({"json": '{"caption": "a cat"}'}, "apart", "auto", r"do not follow each other; pack it again, sorted"),
        ({"txt": "a cat"}, "apart", "auto", r"do not follow each other; pack it again, sorted"),
        ({"json": '{"caption": "a cat"}'}, "together", "blip3o", r"its JSON is read with data\.kind=gpic"),
        ({"txt": "a cat"}, "together", "gpic", r"its \.txt is read with data\.kind=blip3o"),
    ],
)
def test_shards_without_captions_are_refused_with_the_reason(
    texts: dict[str, str], order: str, kind: str, why: str, tmp_path: Path
) -> None:
    path = shard(tmp_path / "a.tar", order, **texts)
    with pytest.raises(UserError, match=rf"a\.tar holds no captions, which text-to-image training needs: .*{why}"):
        require_condition("t2i", opened(path, kind), 10)


def test_single_missing_captions_stay(tmp_path: Path) -> None:
    members = {}
    for number in range(20):
        members[f"{number:02d}.jpg"] = make.jpeg(number)
        members[f"{number:02d}.json"] = json.dumps({"caption": "a cat" if number == 13 else None}).encode()
    require_condition("t2i", opened(make.tar(tmp_path / "a.tar", members)), 10)


def test_images_without_captions_are_no_data_for_text(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no captions.* from shards, from IMAGE\.txt beside each image"):
        require_condition("t2i", opened(folders(tmp_path / "data", "cat", "dog")), 10)
    (tmp_path / "data" / "cat" / "0.txt").write_text("a cat")
    require_condition("t2i", opened(tmp_path / "data"), 10)


@pytest.mark.parametrize("phase", ["e2e", "ar"])
def test_captions_are_no_data_for_classes(phase: str, tmp_path: Path) -> None:
    path = make.gpic_shard(tmp_path / "a.tar", 3)
    with pytest.raises(UserError, match=r"a\.tar holds no class labels.* captions with `gear train t2i`"):
        require_condition(phase, opened(path), 10)
    require_condition("tokenizer", opened(path), 10)


def test_a_model_of_other_classes_is_refused_by_name(tmp_path: Path) -> None:
    source = opened(folders(tmp_path, "ant", "cat", "dog"))
    with pytest.raises(UserError, match=r"holds 3 classes \(ant, cat, dog\) but data\.num_classes is 10; set"):
        require_condition("ar", source, 10)
    require_condition("ar", source, 3)
    require_condition("tokenizer", source, 10)


def test_names_of_classes_can_be_printed_and_written_whatever_they_are(tmp_path: Path) -> None:
    for name in (b"cat", b"\x1b[2J", b"\xff"):
        (tmp_path / "data" / os.fsdecode(name)).mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "data" / "cat" / "0.png")
    for name in (b"\x1b[2J", b"\xff"):
        (tmp_path / "data" / os.fsdecode(name) / "0.png").write_bytes((tmp_path / "data/cat/0.png").read_bytes())
    assert class_names(opened(tmp_path / "data", "image-folder")) == ["'\\x1b[2J'", "cat", "'\\udcff'"]


def test_splits_that_were_taken_for_classes_are_named(tmp_path: Path) -> None:
    source = opened(folders(tmp_path, "train", "val"))
    with pytest.raises(UserError, match="the classes train, val look like the splits of a data set: give one of these"):
        require_condition("e2e", source, 1000)
    assert splits_note(["Test", "train"]) and not splits_note(["train", "cat"]) and not splits_note(["test"])


def test_every_part_of_a_mixture_needs_the_condition_and_the_same_classes(tmp_path: Path) -> None:
    one, two = folders(tmp_path / "one", "ant", "cat"), folders(tmp_path / "two", "ant", "dog")
    assert class_names(opened(f"{one},{two}")) == ["ant", "cat", "ant", "dog"]
    with pytest.raises(UserError, match=r"one and .*two have class folders of different names"):
        require_condition("ar", opened(f"{one},{two}"), 2)
    require_condition("ar", opened(f"{one},{one}"), 2)
    path = make.gpic_shard(tmp_path / "a.tar", 3)
    with pytest.raises(UserError, match="holds no captions"):
        require_condition("t2i", opened(f"{path},{one}"), 10)
