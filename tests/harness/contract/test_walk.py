"""The one walker: links, loops, hidden names, litter, and images of all kinds; and that its users agree through it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.contract import sample_set_from_folder
from harness.contract.errors import BadSamples, EnvironmentFailure, UserError
from harness.contract.walk import files_in, find_images, is_data, kind_of_bytes, subfolders, walk
from harness.store.digests import DigestMemo

HIDDEN = [
    ".DS_Store",
    "._a.png",
    ".ipynb_checkpoints/a-checkpoint.png",
    "__MACOSX/cat/._a.png",
    "__MACOSX/cat/a.png",
    "Thumbs.db",
    "desktop.ini",
    "$RECYCLE.BIN/a.png",
    "System Volume Information/a.png",
    "@eaDir/a.png/SYNOPHOTO_THUMB_M.jpg",
    "lost+found/a.png",
]


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def pictures(root: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        pixels_u8 = np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(pixels_u8).save(root / name, format="PNG" if "." not in name else None)
    return root


def digest(path: Path, tmp_path: Path) -> str:
    return DigestMemo(tmp_path / "memo").of(path)


def test_files_come_in_the_order_of_the_parts_of_their_paths(tmp_path: Path) -> None:
    touch(tmp_path, "b.png", "a-b/1.png", "a/2.png", "a/1/x.png", "B.png")
    assert list(walk(tmp_path)) == ["B.png", "a/1/x.png", "a/2.png", "a-b/1.png", "b.png"]


def test_links_are_followed_and_a_true_copy_has_the_same_files_and_digest(tmp_path: Path) -> None:
    touch(tmp_path / "elsewhere", "1.png", "deep/2.png")
    touch(tmp_path / "set", "real/3.png")
    (tmp_path / "set" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set" / "4.png").symlink_to("real/3.png")
    shutil.copytree(tmp_path / "set", tmp_path / "copy")  # follows links
    assert list(walk(tmp_path / "set")) == ["4.png", "linked/1.png", "linked/deep/2.png", "real/3.png"]
    assert list(walk(tmp_path / "copy")) == list(walk(tmp_path / "set"))
    assert digest(tmp_path / "copy", tmp_path) == digest(tmp_path / "set", tmp_path)
    (tmp_path / "link").symlink_to("set")
    assert list(walk(tmp_path / "link")) == list(walk(tmp_path / "set"))


@pytest.mark.parametrize("target", [".", "..", "../..", "../cat", "../../set/cat"])
def test_a_link_to_a_folder_that_it_lies_in_is_left_out(tmp_path: Path, target: str) -> None:
    root = touch(tmp_path / "set", "cat/1.png", "dog/2.png")
    (root / "cat" / "latest").symlink_to(target)
    found = list(walk(root))
    assert [name for name in found if "/latest/" not in name] == ["cat/1.png", "dog/2.png"]
    assert len(found) <= 4  # a loop through the parent of the root passes the set once more, and ends


def test_a_loop_at_the_top_leaves_the_digest_as_it_is(tmp_path: Path) -> None:
    root = touch(tmp_path / "set", "1.png", "cat/2.png")
    before = digest(root, tmp_path)
    for name in ("latest", "cat/again"):
        (root / name).symlink_to(root)
    assert list(walk(root)) == ["1.png", "cat/2.png"] and digest(root, tmp_path) == before
    assert subfolders(root) == ["cat"]


def test_folders_that_link_to_each_other_crosswise_end(tmp_path: Path) -> None:
    names = [f"{number:02d}" for number in range(12)]
    for name in names:
        touch(tmp_path / "set", f"{name}/x.png")
    for name in names:
        for other in names:
            if name != other:
                (tmp_path / "set" / name / f"to-{other}").symlink_to(f"../{other}")
    with pytest.raises(UserError, match="reached in endless ways through links; remove the links"):
        for _ in walk(tmp_path / "set"):
            pass


@pytest.mark.parametrize(("name", "target"), [("a.png", "gone.png"), ("a.png", "a.png"), ("00012", "/nowhere/00012")])
def test_a_link_to_nothing_is_named(tmp_path: Path, name: str, target: str) -> None:
    root = touch(tmp_path / "set", "b.png")
    (root / name).symlink_to(target)
    with pytest.raises(BadSamples, match=rf"set/{name}: is a link to something that is not there"):
        list(walk(root, error=BadSamples))
    with pytest.raises(UserError, match=rf"set/{name}: is a link"):
        digest(root, tmp_path)
    assert list(walk(root, error=None)) == ["b.png"]


def test_nothing_but_plain_files_is_opened(tmp_path: Path) -> None:
    root = touch(tmp_path / "set", "b.png")
    for name in ("pipe", "a.png"):
        os.mkfifo(root / name)
        with pytest.raises(BadSamples, match=rf"{name}: is not a file that can be read to its end, but a pipe"):
            list(walk(root, error=BadSamples))
        with pytest.raises(UserError, match=f"{name}: is not a file"):
            digest(root, tmp_path)
        assert list(walk(root, error=None)) == ["b.png"]
        (root / name).unlink()


@pytest.mark.parametrize("name", HIDDEN)
def test_hidden_names_and_litter_are_never_data(tmp_path: Path, name: str) -> None:
    root = touch(tmp_path / "set", "cat/1.png")
    before = digest(root, tmp_path)
    touch(root, name, f"cat/{name}")
    assert not is_data(name) and not is_data(f"cat/{name}")
    assert list(walk(root)) == ["cat/1.png"] and digest(root, tmp_path) == before
    assert subfolders(root) == ["cat"] and files_in(root, "") == []


def test_a_hidden_folder_is_read_where_the_user_names_it(tmp_path: Path) -> None:
    assert list(walk(touch(tmp_path / ".hidden", "1.png"))) == ["1.png"]
    assert is_data("./cat/1.png") and is_data("cat.v1/..1"[:6])


def test_a_folder_that_cannot_be_read_and_a_file_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "file")
    with pytest.raises(UserError, match="file: is not a folder"):
        list(walk(tmp_path / "file"))

    def refuse(path: str) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(EnvironmentFailure, match=r"cannot be read \(Permission denied\)"):
        list(walk(tmp_path))


def test_a_name_that_is_not_unicode_is_listed_and_digested(tmp_path: Path) -> None:
    root = touch(tmp_path / "set", "a.png")
    before = digest(root, tmp_path)
    (Path(os.fsdecode(os.fsencode(root) + b"/\xff.png"))).write_bytes(b"x")
    assert list(walk(root)) == ["a.png", "\udcff.png"]
    assert digest(root, tmp_path) not in ("", before)


# --- images ----------------------------------------------------------------------------------------------------------


def test_every_kind_of_image_is_taken_by_one_list(tmp_path: Path) -> None:
    names = ["1.png", "2.PNG", "3.bmp", "4.tif", "5.tiff", "6.ppm", "8.jpg", "9.webp"]
    root = pictures(tmp_path / "set", *names)
    samples = sample_set_from_folder(root, tmp_path / "out")
    assert samples.ids == sorted(names)
    for image_u8, name in zip(samples.images(range(6)), names, strict=False):
        assert np.array_equal(image_u8, np.asarray(Image.open(root / name))), name


@pytest.mark.parametrize("name", ["2.gif", "cat/2.GIF", "2.avif", "3", "4.png~", "5.jpeg.bak"])
def test_an_image_that_cannot_be_taken_is_refused_by_name_and_number(tmp_path: Path, name: str) -> None:
    root = pictures(tmp_path / "set", "1.png")
    (root / name).parent.mkdir(exist_ok=True)
    Image.new("RGB", (8, 8)).save(root / name, format={".gif": "GIF", ".avif": "AVIF"}.get(Path(name).suffix, "PNG"))
    (root / "notes.txt").write_text("BM, GIF8 and other words")
    assert find_images(root).others == [name]
    with pytest.raises(
        BadSamples, match=rf"holds 1 image of another kind \(the first is {name}\).*convert them to PNG"
    ):
        sample_set_from_folder(root, tmp_path / "out")


def test_words_are_no_images(tmp_path: Path) -> None:
    for name, text in {
        "a": "BMW and Porsche: cars",
        "b.md": "P5 of 6",
        "c.log": "RIFF raff",
        "d": "",
        "e": "MM",
    }.items():
        (tmp_path / name).write_text(text)
    assert find_images(tmp_path).others == []


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "PPM", "GIF"])
def test_a_kind_is_known_by_its_first_bytes(tmp_path: Path, form: str) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "x", format=form)
    assert kind_of_bytes((tmp_path / "x").read_bytes()).upper() == form


def test_an_image_under_the_name_of_another_kind_is_called_what_it_is(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png", format="GIF")
    with pytest.raises(BadSamples, match=r"a\.png: cannot be decoded: it is a GIF image; convert it to PNG"):
        sample_set_from_folder(tmp_path, tmp_path / "out")


def test_more_than_eight_bits_are_refused_in_every_format(tmp_path: Path) -> None:
    deep = np.full((8, 8), 60_000, np.uint16)
    for name in ("a.tif", "a.png", "a.pgm"):
        folder = tmp_path / name
        folder.mkdir()
        Image.fromarray(deep).save(folder / name)
        with pytest.raises(BadSamples, match=rf"{name}: has 16 bits per channel"):
            sample_set_from_folder(folder, tmp_path / "out")
    (tmp_path / "rgb").mkdir()
    (tmp_path / "rgb" / "a.ppm").write_bytes(b"P6\n8 8\n65535\n" + bytes(8 * 8 * 6))
    with pytest.raises(BadSamples, match=r"a\.ppm: has 16 bits per channel"):
        sample_set_from_folder(tmp_path / "rgb", tmp_path / "out")


def test_a_set_of_linked_and_real_folders_has_all_its_images(tmp_path: Path) -> None:
    pictures(tmp_path / "elsewhere", "1.png", "2.png")
    pictures(tmp_path / "set", "real/3.png")
    (tmp_path / "set" / "linked").symlink_to(tmp_path / "elsewhere")
    samples = sample_set_from_folder(tmp_path / "set", tmp_path / "out")
    assert samples.ids == ["linked/1.png", "linked/2.png", "real/3.png"]
