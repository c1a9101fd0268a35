from __future__ import annotations

import copy
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from gear.data.base import BadSample
from gear.data.shard_index import build_indices, load_index
from gear.data.shards import ShardKind, ShardSource, blip3o_caption, find_shards, gpic_caption
from harness.contract.errors import UserError
from tests.gear.data import make


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GEAR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "shards"


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def source(*shards: Path, kind: ShardKind = "gpic") -> ShardSource:
    return ShardSource(shards, kind, 16)


def test_samples_are_in_the_order_of_shards_and_members(tmp_path: Path) -> None:
    shards = [make.gpic_shard(tmp_path / "b.tar", 3), make.gpic_shard(tmp_path / "a.tar", 2, first=10)]
    samples = source(*find_shards(str(tmp_path)))
    assert find_shards(str(tmp_path)) == shards[::-1]
    assert [samples.item(i, rng()).caption for i in range(5)] == [f"picture {n}" for n in (10, 11, 0, 1, 2)]
    assert samples.item(4, rng()).image_u8.shape == (3, 16, 16)


def test_a_sample_is_every_run_of_members_with_one_name_but_for_the_last_suffix(tmp_path: Path) -> None:
    shard = make.tar(
        tmp_path / "s.tar",
        {
            "x/one.v1.PNG": make.encoded(1, (16, 16), "png"),
            "x/one.v1.jpeg": make.jpeg(2, (32, 16)),
            "x/one.v1.txt": b"first",
            "x/one.v1.meta": b"ignored",
            "x/one.v2.png": make.encoded(3, (16, 16), "png"),
            "x/one.v1.txt.": b"no suffix",
        },
    )
    assert [bytes(key) for key in load_index(shard)["key"]] == [b"x/one.v1", b"x/one.v2"]
    samples = source(shard, kind="blip3o")
    assert [samples.item(i, rng()).caption for i in range(2)] == ["first", ""]
    assert load_index(shard)["image_size"][0] == len(make.jpeg(2, (32, 16))), "jpeg before png"


def test_captions_are_read_as_the_published_training_reads_them() -> None:
    assert gpic_caption(b'{"caption": "a cat", "caption_type": "short"}') == "a cat"
    assert gpic_caption(b'{"caption": null}') == "" and gpic_caption(b"{}") == ""
    assert blip3o_caption("chat noir é".encode() + b"\xff!") == "chat noir é!"
    for content in (b"{", b"[1]", b"\xff", b'{"caption": 5}', b"[" * 100_000):
        with pytest.raises(BadSample, match=r"JSON|not text"):
            gpic_caption(content)


def test_the_index_is_made_once_and_again_when_the_shard_changes(tmp_path: Path, cache: Path) -> None:
    shard = make.gpic_shard(tmp_path / "s.tar", 2)
    assert len(load_index(shard)) == 2
    (index,) = cache.iterdir()
    made = index.stat().st_mtime_ns
    assert len(load_index(shard)) == 2 and index.stat().st_mtime_ns == made
    make.gpic_shard(shard, 3)
    assert len(load_index(shard)) == 3


def test_a_damaged_index_is_made_again(tmp_path: Path, cache: Path) -> None:
    shard = make.gpic_shard(tmp_path / "s.tar", 2)
    load_index(shard)
    (index,) = cache.iterdir()
    index.write_bytes(index.read_bytes()[:100])
    assert len(load_index(shard)) == 2


def test_indices_made_by_helper_processes_are_the_same(tmp_path: Path, cache: Path) -> None:
    shards = [make.gpic_shard(tmp_path / f"{name}.tar", 2, first=name) for name in range(2)]
    build_indices(shards, workers=2)
    by_helpers = [np.array(load_index(shard)) for shard in shards]
    for index in cache.iterdir():
        index.unlink()
    build_indices(shards, workers=0)
    for theirs, shard in zip(by_helpers, shards, strict=True):
        assert np.array_equal(theirs, load_index(shard))


def test_a_truncated_shard_gives_its_intact_samples_and_one_bad_sample(tmp_path: Path) -> None:
    shard = make.gpic_shard(tmp_path / "s.tar", 3)
    shard.write_bytes(shard.read_bytes()[:4700])
    samples = source(shard)
    assert samples.item(0, rng()).caption == "picture 0"
    with pytest.raises(BadSample, match=r"s\.tar, sample .*damaged or cut off"):
        samples.item(len(samples) - 1, rng())


def test_a_file_that_is_not_a_tar_is_one_bad_sample(tmp_path: Path) -> None:
    shard = tmp_path / "s.tar"
    shard.write_bytes(b"<html>not found</html>" * 100)
    with pytest.raises(BadSample, match="damaged"):
        source(shard).item(0, rng())


def test_a_broken_header_in_the_middle_is_noticed(tmp_path: Path) -> None:
    shard = make.tar(tmp_path / "s.tar", {"1.txt": b"one", "2.txt": b"two"})
    content = bytearray(shard.read_bytes())
    content[1024 + 100] ^= 0xFF
    shard.write_bytes(content)
    assert [bytes(key)[:5] for key in load_index(shard)["key"]] == [b"1", b"(byte"]


def test_a_negative_size_does_not_lead_back_to_the_same_header(tmp_path: Path) -> None:
    """tarfile of some Python versions would read it for ever."""
    shard = make.tar(tmp_path / "s.tar", {"1.jpg": make.jpeg()})
    content = bytearray(shard.read_bytes())
    content[124:136] = b"\xff" * 10 + (-512 & 0xFFFF).to_bytes(2, "big")
    content[148:156] = b" " * 8
    content[148:156] = b"%06o\0 " % sum(content[:512])
    shard.write_bytes(content)
    with pytest.raises(BadSample, match="damaged"):
        source(shard).item(0, rng())


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(tmp_path: Path, kind: bytes) -> None:
    with tarfile.open(tmp_path / "s.tar", "w") as archive:
        member = tarfile.TarInfo("1.jpg")
        member.type, member.linkname = kind, "/etc/passwd"
        archive.addfile(member)
        text = tarfile.TarInfo("1.json")
        text.size = 2
        archive.addfile(text, io.BytesIO(b"{}"))
    with pytest.raises(BadSample, match="a link, a device"):
        source(tmp_path / "s.tar").item(0, rng())


def test_a_huge_member_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gear.data.shard_index.MAX_MEMBER_BYTES", 100)
    shard = make.gpic_shard(tmp_path / "s.tar", 1)
    with pytest.raises(BadSample, match="larger than"):
        source(shard).item(0, rng())


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        ({"1.json": b"{}"}, "has no image"),
        ({"1.jpg": b"not an image", "1.json": b"{}"}, "cannot be read as an image"),
        ({"1.jpg": make.jpeg(), "1.json": b"{"}, "JSON cannot be read"),
    ],
)
def test_a_bad_sample_is_named(tmp_path: Path, members: dict[str, bytes], problem: str) -> None:
    with pytest.raises(BadSample, match=rf"s\.tar, sample 1: .*{problem}"):
        source(make.tar(tmp_path / "s.tar", members)).item(0, rng())


def test_of_a_truncated_image_the_existing_part_is_used(tmp_path: Path) -> None:
    whole = make.jpeg(size=(64, 64))
    shard = make.tar(tmp_path / "s.tar", {"1.jpg": whole[: len(whole) // 2], "1.json": b"{}"})
    assert source(shard).item(0, rng()).image_u8.std() > 0


def test_images_of_absurd_size_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gear.data.images.MAX_PIXELS", 20_000)
    members = {"1.png": make.encoded(0, (200, 101), "png"), "2.png": make.encoded(0, (1, 100), "png")}
    samples = source(make.tar(tmp_path / "s.tar", members))
    with pytest.raises(BadSample, match="200 x 101 pixels are more"):
        samples.item(0, rng())
    with pytest.raises(BadSample, match="too long and thin"):
        samples.item(1, rng())


def test_half_of_the_images_are_mirrored_and_all_are_cropped_in_the_centre(tmp_path: Path) -> None:
    samples = source(make.gpic_shard(tmp_path / "s.tar", 1))
    views = [samples.item(0, np.random.default_rng(seed)).image_u8 for seed in range(20)]
    distinct = {view.tobytes() for view in views}
    assert distinct == {views[0].tobytes(), views[0][:, :, ::-1].tobytes()}
    unmirrored = ShardSource(samples.shards, "gpic", 16, train=False).item(0, rng()).image_u8
    assert unmirrored.tobytes() in distinct


def test_a_copy_of_a_source_opens_its_own_files(tmp_path: Path) -> None:
    samples = source(make.gpic_shard(tmp_path / "s.tar", 2))
    before = samples.item(1, rng())
    after = copy.deepcopy(samples).item(1, rng())
    assert np.array_equal(before.image_u8, after.image_u8) and before.caption == after.caption


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_few_files_are_open_however_many_shards_there_are(tmp_path: Path) -> None:
    made = make.gpic_shard(tmp_path / "000.tar", 1).read_bytes()
    shards = [tmp_path / f"{number:03}.tar" for number in range(100)]
    for shard in shards:
        shard.write_bytes(made)
    before = open_files()
    samples = source(*shards)
    assert open_files() == before
    assert len({samples.item(index, rng()).caption for index in range(len(samples))}) == 1
    assert open_files() - before <= 2 * 64


def test_a_place_without_shards_is_refused(tmp_path: Path) -> None:
    for place in (str(tmp_path), str(tmp_path / "*.tar"), str(tmp_path / "none.tar")):
        with pytest.raises(UserError, match=r"no shards \(\*\.tar\) at"):
            find_shards(place)
    make.gpic_shard(tmp_path / "a.tar", 1)
    assert find_shards(str(tmp_path / "?.tar")) == find_shards(str(tmp_path / "a.tar")) == [tmp_path / "a.tar"]


def test_hidden_members_and_litter_are_no_samples(tmp_path: Path) -> None:
    members = {}
    for name in ("000000", "000001"):
        for suffix, content in (("jpg", make.jpeg()), ("json", b'{"caption": "x"}')):
            members |= {
                f"./{name}.{suffix}": content,
                f"./._{name}.{suffix}": b"resource fork",
                f"__MACOSX/._{name}.{suffix}": b"resource fork",
                f".ipynb_checkpoints/{name}-checkpoint.{suffix}": content,
            }
    shard = make.tar(tmp_path / "s.tar", members)
    assert [bytes(key) for key in load_index(shard)["key"]] == [b"./000000", b"./000001"]
    assert [source(shard).item(i, rng()).caption for i in range(2)] == ["x", "x"]


def test_hidden_files_and_folders_are_no_shards_and_links_are(tmp_path: Path) -> None:
    shard = make.gpic_shard(tmp_path / "data.tar", 1)
    for name in ("._a.tar", ".b.tar"):
        (tmp_path / name).write_bytes(b"resource fork")
    (tmp_path / "c.tar").mkdir()
    (tmp_path / "d.tar").symlink_to(shard)
    assert {path.name for path in find_shards(str(tmp_path))} == {"data.tar", "d.tar"}
    assert {path.name for path in find_shards(str(tmp_path / "*.tar"))} == {"data.tar", "d.tar"}
    (tmp_path / "e.tar").symlink_to("gone.tar")
    with pytest.raises(UserError, match=r"e\.tar: is a link to something that is not there"):
        find_shards(str(tmp_path))


def test_a_shard_may_hold_any_kind_of_image_that_is_read(tmp_path: Path) -> None:
    members = {
        "0.webp": make.encoded(0, (16, 16), "webp"),
        "0.txt": b"a cat",
        "1.bmp": make.encoded(0, (16, 16), "bmp"),
    }
    samples = source(make.tar(tmp_path / "s.tar", members), kind="blip3o")
    assert [samples.item(i, rng()).caption for i in range(2)] == ["a cat", ""]
