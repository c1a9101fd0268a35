from __future__ import annotations

import io
import json
import tarfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from benchmarks.gpic.prompts import Caption, build_prompts, main, read_prompts
from benchmarks.gpic.request_set import main as make_request_set
from harness.contract.errors import MissingAsset
from harness.contract.files import read_json_lines, write_json, write_json_lines
from harness.contract.requests import RequestSet

ROWS = {
    "a": {"caption": "a fox é", "caption_type": "short"},
    "b": {"caption": "a long one"},
    "c": {"caption": "tag, tag", "caption_type": "tag"},
}


@pytest.fixture
def source(tmp_path: Path) -> tuple[Path, Path]:
    """Statistics that ask for c, a, gone, b; and two tars that hold the captions and an image nobody reads."""
    stats, shards = tmp_path / "test_stats.npz", tmp_path / "shards"
    np.savez(stats, key=np.array(["c", "a", "gone", "b"]), tar_idx=np.array([1, 0, 0, 1]))
    shards.mkdir()
    for tar, keys in ((0, "a"), (1, "bc")):
        with tarfile.open(shards / f"gpic_test_{tar:05d}.tar", "w") as archive:
            for key in keys:
                for name, data in ((f"{key}.jpg", b"x" * 99), (f"{key}.json", json.dumps(ROWS[key]).encode())):
                    info = tarfile.TarInfo(name)
                    info.size = len(data)
                    archive.addfile(info, io.BytesIO(data))
    return stats, shards


def test_captions_come_in_the_order_of_the_keys_and_a_missing_one_is_left_out(source: tuple[Path, Path]) -> None:
    captions, missing = build_prompts(*source)
    assert [caption.key for caption in captions] == ["c", "a", "b"]
    assert missing == ["gone"]
    assert captions[2] == Caption(key="b", caption="a long one", caption_type="")


def test_the_command_writes_the_list_that_the_asset_is(source: tuple[Path, Path], tmp_path: Path) -> None:
    stats, shards = source
    asset = tmp_path / "asset"
    asset.mkdir()
    written = asset / "gpic_eval_50k.jsonl"
    assert main(["--stats", str(stats), "--shards", str(shards), "--out", str(written)]) == 0
    assert [row for _, row in read_json_lines(written)] == [asdict(caption) for caption in build_prompts(*source)[0]]
    assert read_prompts(asset, stats) == read_prompts(shards, stats)


def test_a_folder_without_the_tars_is_named(source: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(MissingAsset, match=r"gpic_test_00000\.tar: cannot be read.*--asset gpic-prompts=DIR"):
        build_prompts(source[0], tmp_path)


@pytest.mark.parametrize("limit", [None, 2])
def test_the_request_set_has_an_image_per_prompt(source: tuple[Path, Path], tmp_path: Path, limit: int | None) -> None:
    stats, shards = source
    assets, out = tmp_path / "assets", tmp_path / "out"
    (assets / "gpic-reference").mkdir(parents=True)
    (assets / "gpic-reference" / "test_stats.npz").write_bytes(stats.read_bytes())
    (assets / "gpic-prompts").mkdir()
    captions, _ = build_prompts(stats, shards)
    write_json_lines(assets / "gpic-prompts" / "gpic_eval_50k.jsonl", map(asdict, captions))
    spec = {"benchmark": "gpic", "version": 1, "protocol": {"image_size": 64}, "limit": limit, "run_seed": 3}
    write_json(tmp_path / "spec.json", spec)
    arguments = ["--spec", tmp_path / "spec.json", "--assets", assets, "--out", out]
    assert make_request_set([str(argument) for argument in arguments]) == 0
    requests = RequestSet.read(out)
    assert [request.prompt for request in requests] == ["tag, tag", "a fox é", "a long one"][:limit]
    assert [request.path for request in requests] == ["000000.png", "000001.png", "000002.png"][:limit]
