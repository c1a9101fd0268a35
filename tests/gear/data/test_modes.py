"""Every reader of images takes an image of an unusual mode alike: as what it shows, or not at all, with a sentence."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from gear.data.base import BadSample
from gear.data.captioned_folder import CaptionedFolderSource
from gear.data.folder import ImageFolderSource
from gear.data.shards import ShardSource
from gear.images import load_image
from gear.reconstruct import open_images
from harness.contract.errors import UserError
from harness.scoring.coco import CocoParquet
from tests.gear.data import make

SIDE = 16
GRAY = np.linspace(0, 65_535, SIDE * SIDE).astype(np.uint16).reshape(SIDE, SIDE)
"""Most of it is above 255, where Pillow's own conversion cuts it off."""
NO_DRAWS = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEAR_CACHE", str(tmp_path / "cache"))


def one_image(data: bytes, folder: Path) -> np.ndarray:
    (folder / "image.png").write_bytes(data)  # every reader goes by the content, not by the name
    pixels = load_image(folder / "image.png", SIDE)[0].numpy()
    return np.round((pixels + 1) * 127.5).astype(np.uint8).transpose(1, 2, 0)


def reconstructed(data: bytes, folder: Path) -> np.ndarray:
    (folder / "image.png").write_bytes(data)
    return open_images(str(folder), SIDE, 0).read(0)


def in_a_class(data: bytes, folder: Path) -> np.ndarray:
    (folder / "cat").mkdir()
    (folder / "cat" / "image.png").write_bytes(data)
    return ImageFolderSource(folder, SIDE, train=False).item(0, NO_DRAWS).image_u8.transpose(1, 2, 0)


def with_a_caption(data: bytes, folder: Path) -> np.ndarray:
    (folder / "image.png").write_bytes(data)
    (folder / "image.txt").write_text("a cat")
    return CaptionedFolderSource(folder, SIDE, train=False).item(0, NO_DRAWS).image_u8.transpose(1, 2, 0)


def in_a_shard(data: bytes, folder: Path) -> np.ndarray:
    shard = make.tar(folder / "s.tar", {"image.png": data, "image.json": b'{"caption": "a cat"}'})
    return ShardSource([shard], "gpic", SIDE, train=False).item(0, NO_DRAWS).image_u8.transpose(1, 2, 0)


def in_coco(data: bytes, folder: Path) -> np.ndarray:
    pq.write_table(pa.table({"image": [data], "caption": ["a cat"]}), folder / "0.parquet")
    ((_, image),) = CocoParquet(folder).images({0})
    return np.asarray(image)


TRAINING = (in_a_class, with_a_caption, in_a_shard)
READERS = (one_image, reconstructed, in_coco, *TRAINING)
every_reader = pytest.mark.parametrize("read", READERS)


def encoded(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def colours(seed: int, channels: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, channels), dtype=np.uint8)


@every_reader
@pytest.mark.parametrize("form", ["PNG", "TIFF", "PPM", "JPEG2000"])
def test_sixteen_bit_gray_is_scaled(read: Callable[[bytes, Path], np.ndarray], form: str, tmp_path: Path) -> None:
    expected = np.round(GRAY / 257).astype(np.uint8)
    np.testing.assert_array_equal(read(encoded(Image.fromarray(GRAY), form), tmp_path), np.dstack([expected] * 3))


def a_palette_with_a_transparent_entry() -> bytes:
    return encoded(Image.fromarray(colours(1, 3)).quantize(8), transparency=0)


UNCLEAR = {
    "floats": (lambda: encoded(Image.fromarray(GRAY.astype(np.float32)), "TIFF"), "floating-point numbers of no known"),
    "integers": (lambda: encoded(Image.fromarray(GRAY.astype(np.int32)), "TIFF"), "32-bit integers of no known range"),
    "gray and alpha": (lambda: encoded(Image.fromarray(colours(2, 2), "LA")), "transparent pixels; put it on a back"),
    "palette": (a_palette_with_a_transparent_entry, "transparent pixels; put it on a background"),
    "a transparent gray": (
        lambda: encoded(Image.fromarray(colours(3, 3)[..., 0]), transparency=int(colours(3, 3)[0, 0, 0])),
        "transparent pixels; put it on a background",
    ),
}


@every_reader
@pytest.mark.parametrize(("make_image", "reason"), UNCLEAR.values(), ids=UNCLEAR.keys())
def test_what_has_no_single_meaning_is_refused_by_name(
    read: Callable[[bytes, Path], np.ndarray], make_image: Callable[[], bytes], reason: str, tmp_path: Path
) -> None:
    with pytest.raises((UserError, BadSample), match=reason) as refusal:
        read(make_image(), tmp_path)
    assert str(tmp_path) in str(refusal.value)


@every_reader
def test_transparency_that_hides_nothing_is_dropped(read: Callable[[bytes, Path], np.ndarray], tmp_path: Path) -> None:
    opaque = colours(4, 4)
    opaque[..., 3] = 255
    np.testing.assert_array_equal(read(encoded(Image.fromarray(opaque)), tmp_path), opaque[..., :3])


@every_reader
def test_what_rgba_hides_is_used_in_training_alone(read: Callable[[bytes, Path], np.ndarray], tmp_path: Path) -> None:
    """The published training converts so; an image that somebody names is not turned into what nobody sees."""
    image = colours(5, 4)
    if read in TRAINING:
        np.testing.assert_array_equal(read(encoded(Image.fromarray(image)), tmp_path), image[..., :3])
        return
    with pytest.raises(UserError, match="transparent pixels"):
        read(encoded(Image.fromarray(image)), tmp_path)


@every_reader
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_exif_orientation_is_ignored(read: Callable[[bytes, Path], np.ndarray], form: str, tmp_path: Path) -> None:
    image, exif = Image.fromarray(colours(6, 3)), Image.Exif()
    exif[0x0112] = 6
    data = encoded(image, form, exif=exif)
    stored = np.asarray(Image.open(io.BytesIO(encoded(image, form))).convert("RGB"))
    assert Image.open(io.BytesIO(data)).getexif()[0x0112] == 6
    np.testing.assert_array_equal(read(data, tmp_path), stored)
