from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from gear.data.base import BadSample
from gear.data.captioned_folder import CaptionedFolderSource
from harness.contract.errors import UserError
from tests.gear.data import make


def captions(root: Path) -> list[str | None]:
    source = CaptionedFolderSource(root, 16)
    return [source.item(index, np.random.default_rng(0)).caption for index in range(len(source))]


def images(root: Path, *names: str) -> None:
    for number, name in enumerate(names):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(make.jpeg(number))


def test_captions_beside_images(tmp_path: Path) -> None:
    images(tmp_path, "b.jpg", "sub/a.jpg")
    (tmp_path / "b.txt").write_text("a bee\n")
    (tmp_path / "sub" / "a.txt").write_text("an ant")
    assert captions(tmp_path) == ["a bee", "an ant"]


def test_an_image_without_its_caption_is_a_bad_sample(tmp_path: Path) -> None:
    images(tmp_path, "a.jpg")
    with pytest.raises(BadSample, match=r"a\.jpg: it has no caption beside it"):
        captions(tmp_path)


@pytest.mark.parametrize("field", ["caption", "text"])
def test_captions_in_a_table(tmp_path: Path, field: str) -> None:
    images(tmp_path, "a.jpg", "sub/b.jpg", "unlisted.jpg")
    rows = [{"file_name": "sub/b.jpg", field: "naïve, second"}, {"file_name": "a.jpg", field: "first"}]
    (tmp_path / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert captions(tmp_path) == ["first", "naïve, second"]


def test_captions_in_a_csv_table(tmp_path: Path) -> None:
    images(tmp_path, "a.jpg")
    (tmp_path / "metadata.csv").write_text('file_name,caption\na.jpg,"one, two"\n')
    assert captions(tmp_path) == ["one, two"]


@pytest.mark.parametrize(
    "row", ['{"file_name": "../x.jpg", "text": "x"}', '{"file_name": "a.jpg"}', "[1]", "{", '{"text": "x"}']
)
def test_a_row_that_cannot_be_used_is_named(tmp_path: Path, row: str) -> None:
    (tmp_path / "metadata.jsonl").write_text(row)
    with pytest.raises(UserError, match=r"metadata\.jsonl cannot be used"):
        CaptionedFolderSource(tmp_path, 16)


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="lists no image"):
        CaptionedFolderSource(tmp_path, 16)
    with pytest.raises(UserError, match="is not a folder"):
        CaptionedFolderSource(tmp_path / "none", 16)


def test_hidden_names_are_no_data_in_folders_and_tables(tmp_path: Path) -> None:
    images(tmp_path, "a.jpg", "._a.jpg", ".ipynb_checkpoints/a.jpg", "__MACOSX/a.jpg")
    (tmp_path / "a.txt").write_text("an ant")
    assert captions(tmp_path) == ["an ant"]
    rows = [{"file_name": name, "text": name} for name in ("._a.jpg", "a.jpg", "__MACOSX/a.jpg")]
    (tmp_path / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert captions(tmp_path) == ["a.jpg"]
