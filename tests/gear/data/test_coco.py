from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from gear.data.coco import CocoSelection
from harness.contract.errors import EnvironmentFailure, MissingAsset


def png(level: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (6, 4), (level, 0, 0)).save(stream, format="PNG")
    return stream.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two files: images as raw bytes, then as structs with bytes or a path; the level of an image is its row."""
    (tmp_path / "5.png").write_bytes(png(5))
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    cells = [{"bytes": png(4), "path": "nowhere.png"}, {"bytes": None, "path": "5.png"}]
    parts = [pa.array([png(level) for level in range(4)], pa.binary()), pa.array(cells, struct)]
    captions = [[f"caption {row}" for row in range(4)], [["caption 4", "another"], ["caption 5"]]]
    for number in (1, 0):  # written in another order than that of the names
        pq.write_table(pa.table({"image": parts[number], "caption": captions[number]}), tmp_path / f"{number}.parquet")
    return tmp_path


def test_captions_and_images_come_in_the_order_of_the_permutation(folder: Path) -> None:
    chosen = CocoSelection(folder, num=4, seed=42)
    rows = np.random.RandomState(42).permutation(6)[:4]
    assert chosen.captions == [f"caption {row}" for row in rows]
    assert chosen.images(0, 4, 2)[:, 0, 0, 0].tolist() == rows.tolist()
    np.testing.assert_array_equal(chosen.images(1, 3, 2)[:, 0, 0, 0], rows[1:3])


def test_all_rows_are_taken_where_more_are_asked_for(folder: Path) -> None:
    chosen = CocoSelection(folder, num=1000, seed=42)
    assert sorted(chosen.images(0, len(chosen), 4)[:, 0, 0, 0]) == list(range(6))


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingAsset, match=r"holds no \*\.parquet files"):
        CocoSelection(tmp_path, 2, 42)
    pq.write_table(pa.table({"image": [b"no image"]}), tmp_path / "a.parquet")
    with pytest.raises(MissingAsset, match=r"a\.parquet has no column 'caption'"):
        CocoSelection(tmp_path, 2, 42)
    pq.write_table(pa.table({"image": [b"no image"], "caption": ["x"]}), tmp_path / "a.parquet")
    with pytest.raises(MissingAsset, match=r"a\.parquet: row 0 holds no readable image"):
        CocoSelection(tmp_path, 2, 42).images(0, 1, 4)
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(MissingAsset, match=r"a\.parquet cannot be read as parquet"):
        CocoSelection(tmp_path, 2, 42)


def test_without_pyarrow_one_sentence_says_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(EnvironmentFailure, match=r"pip install 'gear-harness\[coco\]'"):
        CocoSelection(folder, 2, 42)
