from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from benchmarks.coco.dataset import CocoParquet, selection
from benchmarks.coco.request_set import main
from harness.contract.errors import MissingAsset
from harness.contract.files import write_json
from harness.contract.requests import RequestSet


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


def test_the_request_set_follows_the_selection(folder: Path, tmp_path: Path) -> None:
    spec = {
        "benchmark": "coco",
        "version": 1,
        "protocol": {"image_size": 32},
        "requests": {"num_samples": 4, "selection_seed": 42},
        "limit": None,
        "run_seed": 0,
    }
    write_json(tmp_path / "spec.json", spec)
    arguments = ["--spec", tmp_path / "spec.json", "--assets", folder.parent, "--out", tmp_path / "out"]
    assert main([str(argument) for argument in arguments]) == 0
    wanted = [f"caption {row}" for row in selection(10, 4, 42)]
    assert [request.prompt for request in RequestSet.read(tmp_path / "out")] == wanted


def test_a_folder_without_parquet_or_columns_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingAsset, match="holds no parquet files"):
        CocoParquet(tmp_path)
    pq.write_table(pa.table({"image": [b""], "text": ["x"]}), tmp_path / "val.parquet")
    with pytest.raises(MissingAsset, match="has no column 'caption'"):
        CocoParquet(tmp_path)


def test_an_unreadable_image_is_named_with_its_row(folder: Path) -> None:
    (folder / "8.png").unlink()
    with pytest.raises(MissingAsset, match=r"val-2\.parquet: row 8 names the image .*8\.png"):
        list(CocoParquet(folder).images({8}))
