from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from gear.data.config import DataConfig
from gear.data.detect import detect_kind
from gear.data.mixture import MixtureSource
from gear.data.sources import open_source
from harness.contract.errors import UserError
from tests.gear.data import make


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEAR_CACHE", str(tmp_path_factory.mktemp("cache")))


def class_folder(root: Path) -> None:
    (root / "cat").mkdir()
    (root / "cat" / "1.jpg").write_bytes(make.jpeg())


def captions_beside(root: Path) -> None:
    (root / "1.jpg").write_bytes(make.jpeg())
    (root / "1.txt").write_text("a cat")


def table(root: Path) -> None:
    (root / "1.jpg").write_bytes(make.jpeg())
    (root / "metadata.jsonl").write_text('{"file_name": "1.jpg", "caption": "a cat"}')


def gpic(root: Path) -> None:
    make.gpic_shard(root / "0.tar", 1)


def blip3o(root: Path) -> None:
    make.tar(root / "0.tar", {"1.jpg": make.jpeg(), "1.txt": b"a cat"})


def idx(root: Path) -> None:
    (root / "train-images-idx3-ubyte").write_bytes(bytes([0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 4, 0, 0, 0, 4]) + bytes(16))
    (root / "train-labels-idx1-ubyte").write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 1, 0]))


@pytest.mark.parametrize(
    ("make_it", "kind"),
    [
        (class_folder, "image-folder"),
        (captions_beside, "captioned-folder"),
        (table, "captioned-folder"),
        (gpic, "gpic"),
        (blip3o, "blip3o"),
        (idx, "idx"),
    ],
)
def test_every_kind_is_recognised_and_opens(tmp_path: Path, make_it: Callable[[Path], None], kind: str) -> None:
    make_it(tmp_path)
    assert detect_kind(str(tmp_path)) == kind
    assert len(open_source(DataConfig(data_dir=str(tmp_path), image_size=16))) == 1


def test_a_folder_of_several_kinds_is_ambiguous_and_the_fix_is_named(tmp_path: Path) -> None:
    gpic(tmp_path)
    table(tmp_path)
    with pytest.raises(UserError, match=r"--set data\.kind=gpic or --set data\.kind=captioned-folder"):
        detect_kind(str(tmp_path))


def test_shards_with_both_sorts_of_captions_are_ambiguous(tmp_path: Path) -> None:
    make.tar(tmp_path / "0.tar", {"1.jpg": make.jpeg(), "1.txt": b"a cat", "1.json": b"{}"})
    with pytest.raises(UserError, match=r"data\.kind=gpic \(JSON\)"):
        detect_kind(str(tmp_path))


def test_a_folder_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no known kind of training data"):
        detect_kind(str(tmp_path))


def test_several_places_become_one_source(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    gpic(tmp_path / "a")
    make.gpic_shard(tmp_path / "b" / "0.tar", 3)
    config = DataConfig(data_dir=f"{tmp_path}/a, {tmp_path}/b", data_probs="0.25,0.75", image_size=16)
    source = open_source(config)
    assert isinstance(source, MixtureSource) and len(source) == 4
    with pytest.raises(UserError, match="one number per source"):
        open_source(DataConfig(data_dir=f"{tmp_path}/a,{tmp_path}/b", data_probs="a,b"))
