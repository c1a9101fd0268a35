from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from harness.contract.errors import EnvironmentFailure, MissingAsset
from harness.scoring.coco import CocoParquet, CocoSelection, selection


def png(level: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (6, 4), (level, 0, 0)).save(stream, format="PNG")
    return stream.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three files: images as structs with bytes, as raw bytes, and as paths; ten rows."""
    where = tmp_path / "coco-val2017"
    where.mkdir()
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    (where / "8.png").write_bytes(png(8))
    parts = [
        pa.array([{"bytes": png(level), "path": None} for level in range(4)], struct),
        pa.array([png(level) for level in range(4, 8)], pa.binary()),
        pa.array([{"bytes": None, "path": "8.png"}, {"bytes": png(9), "path": "nowhere.png"}], struct),
    ]
    start = 0
    for number, images in enumerate(parts):
        captions = [f"caption {row}" for row in range(start, start + len(images))]
        pq.write_table(pa.table({"image": images, "caption": captions}), where / f"val-{number}.parquet")
        start += len(images)
    return where


def test_rows_are_counted_over_all_files_in_order_of_name(folder: Path) -> None:
    dataset = CocoParquet(folder)
    assert len(dataset) == 10
    assert dataset.captions() == [f"caption {row}" for row in range(10)]


def test_the_digest_is_of_the_bytes_of_the_files(folder: Path) -> None:
    before = CocoParquet(folder).digest
    assert CocoParquet(folder).digest == before
    (folder / "README.md").write_text("not data")
    assert CocoParquet(folder).digest == before
    table = pq.read_table(folder / "val-1.parquet")
    pq.write_table(table.slice(1), folder / "val-1.parquet")
    assert CocoParquet(folder).digest != before


def test_an_image_may_be_bytes_a_struct_or_a_path(folder: Path) -> None:
    found = {row: np.asarray(image)[0, 0, 0] for row, image in CocoParquet(folder).images({0, 5, 8, 9})}
    assert found == {0: 0, 5: 5, 8: 8, 9: 9}


def test_the_selection_is_capped_and_permuted() -> None:
    assert sorted(selection(10, 30_000, 42)) == list(range(10))
    np.testing.assert_array_equal(selection(10, 4, 42), np.random.RandomState(42).permutation(10)[:4])


def test_captions_and_images_come_in_the_order_of_the_permutation(folder: Path) -> None:
    chosen = CocoSelection(CocoParquet(folder), 4, seed=42)
    rows = np.random.RandomState(42).permutation(10)[:4]
    (folder / "nowhere.png").write_bytes(png(9))
    assert chosen.captions == [f"caption {row}" for row in rows]
    assert chosen.images(0, 4, 2)[:, 0, 0, 0].tolist() == rows.tolist()
    np.testing.assert_array_equal(chosen.images(1, 3, 2)[:, 0, 0, 0], rows[1:3])


def test_all_rows_are_taken_where_more_are_asked_for(folder: Path) -> None:
    chosen = CocoSelection(CocoParquet(folder), 1000, seed=42)
    assert sorted(chosen.images(0, len(chosen), 4)[:, 0, 0, 0]) == list(range(10))


def test_the_first_caption_counts_where_a_row_has_several(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [png(0)], "caption": [["first", "second"]]}), tmp_path / "a.parquet")
    assert CocoParquet(tmp_path).captions() == ["first"]


@pytest.mark.parametrize(
    ("captions", "sentence"),
    [
        (["x", None], "row 1: holds null"),
        ([["x"], []], "row 1: holds null"),
        ([[None, "x"]], "row 0: holds null"),
        (["x", "x", " "], "row 2: is blank"),
        ([7], "row 0: holds int"),
    ],
)
def test_a_row_without_a_caption_is_named(tmp_path: Path, captions: list, sentence: str) -> None:
    pq.write_table(pa.table({"image": [png(0)] * len(captions), "caption": captions}), tmp_path / "a.parquet")
    with pytest.raises(MissingAsset, match=rf"a\.parquet: {sentence}"):
        CocoParquet(tmp_path).captions()


def test_captions_that_are_damaged_are_named(tmp_path: Path) -> None:
    table = pa.table({"image": [png(0)] * 40, "caption": [f"caption {row}" for row in range(40)]})
    pq.write_table(table, tmp_path / "a.parquet", compression="none")
    data = (tmp_path / "a.parquet").read_bytes()
    for old, new in ((b"caption 7", b"caption\xff7"), (b"caption 7", b"\xff" * 9)):
        (tmp_path / "a.parquet").write_bytes(data.replace(old, new))
        with pytest.raises(MissingAsset, match=r"a\.parquet: cannot be read as parquet"):
            CocoParquet(tmp_path).captions()


def test_a_folder_without_parquet_or_columns_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingAsset, match=r"holds no \*\.parquet files; name their folder: --asset coco-val2017=DIR"):
        CocoParquet(tmp_path)
    with pytest.raises(MissingAsset, match=r"name their folder: --set watch\.coco_dir=DIR"):
        CocoParquet(tmp_path, setting="--set watch.coco_dir=DIR")
    pq.write_table(pa.table({"image": [b""], "text": ["x"]}), tmp_path / "val.parquet")
    with pytest.raises(MissingAsset, match="has no column 'caption'"):
        CocoParquet(tmp_path)


def test_an_unreadable_image_is_named_with_its_row(folder: Path) -> None:
    (folder / "8.png").unlink()
    with pytest.raises(MissingAsset, match=r"val-2\.parquet: row 8 names the image .*8\.png"):
        list(CocoParquet(folder).images({8}))


def test_a_cell_or_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [b"no image"], "caption": ["x"]}), tmp_path / "a.parquet")
    with pytest.raises(MissingAsset, match=r"a\.parquet: row 0 holds no readable image"):
        CocoSelection(CocoParquet(tmp_path), 2, 42).images(0, 1, 4)
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(MissingAsset, match=r"a\.parquet: cannot be read as parquet"):
        CocoParquet(tmp_path)


def test_without_pyarrow_one_sentence_says_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(EnvironmentFailure, match=r"pip install 'gear-harness\[coco\]'"):
        CocoParquet(folder)


def test_hidden_names_are_no_data_and_links_are(folder: Path) -> None:
    before = CocoParquet(folder).digest
    (folder / "._val-0.parquet").write_bytes(b"resource fork")
    (folder / "val-1.parquet").rename(folder.parent / "elsewhere")
    (folder / "val-1.parquet").symlink_to(folder.parent / "elsewhere")
    assert CocoParquet(folder).digest == before
    (folder / "val-3.parquet").symlink_to("gone.parquet")
    with pytest.raises(MissingAsset, match=r"val-3\.parquet: is a link to something that is not there"):
        CocoParquet(folder)
