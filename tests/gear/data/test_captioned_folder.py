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


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_captions_are_read_as_people_save_them(tmp_path: Path, encoding: str) -> None:
    images(tmp_path, "a.jpg")
    (tmp_path / "a.txt").write_bytes("naïve\r\n".encode(encoding))
    assert captions(tmp_path) == ["naïve"]
    for name, text in (
        ("metadata.csv", "sep=;\r\nfile_name;caption\r\na.jpg;naïve, red\r\n"),
        ("metadata.csv", "file_name\tcaption\na.jpg\tnaïve, red\n"),
        ("metadata.jsonl", '{"file_name": "a.jpg", "text": "naïve, red"}\r\n'),
    ):
        (tmp_path / name).write_bytes(text.encode(encoding))
        assert captions(tmp_path) == ["naïve, red"]


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl"])
def test_every_caption_of_an_image_is_a_sample(tmp_path: Path, name: str) -> None:
    images(tmp_path, "a.jpg", "b.jpg")
    rows = [("b.jpg", "third"), ("a.jpg", "first"), ("b.jpg", "fourth"), ("a.jpg", "second")]
    table = "file_name,caption\n" + "".join(f"{image},{text}\n" for image, text in rows)
    lines = "".join(json.dumps({"file_name": image, "caption": text}) + "\n" for image, text in rows)
    (tmp_path / name).write_text(table if name.endswith("csv") else lines)
    assert captions(tmp_path) == ["first", "second", "third", "fourth"]


@pytest.mark.parametrize(
    ("name", "data", "sentence"),
    [
        ("metadata.csv", b"file_name,caption\na.jpg,a cat, red\n", "line 2: has 3 fields"),
        ("metadata.csv", b"file_name,caption\na.jpg,a\nb.jpg,caf\xe9\n", "line 3: is not UTF-8"),
        ("metadata.csv", b"image,caption\na.jpg,a\n", "line 1: the header .* has no column file_name"),
        (
            "metadata.jsonl",
            b'{"file_name": "a.jpg", "text": "a"}\n\n{"file_name": "b.jpg", "text": null}',
            "line 3: every",
        ),
        ("metadata.jsonl", '{"file_name": "a.jpg"}'.encode("utf-16-le"), "line 1: holds a NUL character"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_with_its_line(
    tmp_path: Path, name: str, data: bytes, sentence: str
) -> None:
    images(tmp_path, "a.jpg")
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=rf"{name} cannot be used \({sentence}"):
        CaptionedFolderSource(tmp_path, 16)


def test_a_caption_in_another_encoding_is_a_bad_sample(tmp_path: Path) -> None:
    images(tmp_path, "a.jpg")
    (tmp_path / "a.txt").write_bytes("café".encode("latin-1"))
    with pytest.raises(BadSample, match=r"its caption a\.txt cannot be read \(line 1: is not UTF-8"):
        captions(tmp_path)


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
