import io
import random
import re
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from harness.contract.errors import BadSamples, EnvironmentFailure
from harness.contract.images import encode_png, read_any_image, read_png, to_square

SQUARES = st.integers(1, 9).flatmap(lambda size: hnp.arrays(np.uint8, (size, size, 3)))


def noise(size=8, channels=3):
    return np.random.default_rng(0).integers(0, 256, (size, size, channels), np.uint8)


def save(path, image, **options):
    image.save(path, **options)
    return path


def image_or_sentence(read):
    try:
        return read()
    except BadSamples as error:
        return str(error)


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


@given(SQUARES)
def test_png_keeps_every_pixel(tmp_path_factory, image_u8):
    path = tmp_path_factory.mktemp("png") / "a.png"
    path.write_bytes(encode_png(image_u8))
    np.testing.assert_array_equal(read_png(path, len(image_u8)), image_u8)
    np.testing.assert_array_equal(read_any_image(path), image_u8)


WRONG = {
    "another size": (Image.fromarray(noise(4)), {}, "is 4x4 pixels, not 8x8"),
    "not square": (Image.fromarray(noise(8)[:4]), {}, "is 8x4 pixels, not 8x8"),
    "grayscale": (Image.fromarray(noise()).convert("L"), {}, r"is grayscale at 8 bits.*convert\('RGB'\)"),
    "one bit": (Image.fromarray(noise()).convert("1"), {}, "is grayscale at 1 bits"),
    "a palette": (Image.fromarray(noise()).convert("P"), {}, "is palette"),
    "alpha": (Image.fromarray(noise(8, 4)), {}, "is RGB with alpha"),
    "gray and alpha": (Image.fromarray(noise()).convert("LA"), {}, "is grayscale with alpha"),
    "a transparent colour": (Image.fromarray(noise()), {"transparency": (1, 2, 3)}, "transparent pixels"),
    "JPEG": (Image.fromarray(noise()), {"format": "JPEG"}, "is not a PNG file"),
    "WebP": (Image.fromarray(noise()), {"format": "WEBP", "lossless": True}, "is not a PNG file"),
}


@pytest.mark.parametrize(("image", "options", "sentence"), WRONG.values(), ids=WRONG.keys())
def test_a_png_of_another_kind_is_refused_by_name(tmp_path, image, options, sentence):
    if options.get("transparency"):
        image.putpixel((0, 0), (1, 2, 3))
    path = save(tmp_path / "a.png", image, **options)
    with pytest.raises(BadSamples, match=rf"a\.png: .*{sentence}"):
        read_png(path, 8)


def sixteen_bit_rgb():
    rows = b"".join(b"\0" + bytes(48) for _ in range(8))
    header = struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_sixteen_bits_are_refused_rather_than_rounded(tmp_path):
    (tmp_path / "a.png").write_bytes(sixteen_bit_rgb())
    with pytest.raises(BadSamples, match="at 16 bits, not 8-bit RGB"):
        read_png(tmp_path / "a.png", 8)
    with pytest.raises(BadSamples, match="16 bits per channel; save it with 8"):
        read_any_image(tmp_path / "a.png")


def test_the_advice_gives_the_picture_that_the_file_shows(tmp_path):
    """convert('RGB') whitens 16-bit gray and shows what transparency hides: the printed advice is followed here."""
    gray = np.linspace(0, 65_535, 64).astype(np.uint16).reshape(8, 8)
    red = np.full((8, 8, 4), (255, 0, 0, 0), np.uint8)
    for name, image, expected in (
        ("gray", Image.fromarray(gray), np.dstack([(gray // 257).astype(np.uint8)] * 3)),
        ("clear", Image.fromarray(red), np.full((8, 8, 3), 255, np.uint8)),
        ("plain", Image.fromarray(noise()[..., 0]), np.dstack([noise()[..., 0]] * 3)),
    ):
        path = save(tmp_path / f"{name}.png", image)
        with pytest.raises(BadSamples, match=rf"{name}\.png: .*not 8-bit RGB") as refusal:
            read_png(path, 8)
        names = {"Image": Image, "np": np, "f": path}
        *statements, last = str(refusal.value).partition("RGB; ")[2].partition(": ")[2].removesuffix(".").split("; ")
        for statement in statements:
            exec(statement, names)
        np.testing.assert_array_equal(np.asarray(eval(last, names)), expected)


def bomb():
    header = struct.pack(">IIBBBBB", 2**31 - 1, 2**31 - 1, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    )


def test_an_absurd_size_is_refused_before_it_is_decoded(tmp_path):
    (tmp_path / "a.png").write_bytes(bomb())
    with pytest.raises(BadSamples, match="pixels, not 8x8"):
        read_png(tmp_path / "a.png", 8)
    with pytest.raises(BadSamples, match="too large to be a sample"):
        read_any_image(tmp_path / "a.png")


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_png_that_was_cut_short_is_refused_or_whole(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("png") / "a.png"
    whole = encode_png(noise())
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    for read in (lambda: read_png(path, 8), lambda: read_any_image(path)):
        found = image_or_sentence(read)
        if isinstance(found, str):
            assert "a.png" in found
        else:  # only the closing chunks are missing
            np.testing.assert_array_equal(found, noise())


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_flipped_byte_is_a_sentence_or_some_image(tmp_path_factory, data):
    """Not every damage shows in a PNG by itself; the hash in the index catches the rest."""
    path = tmp_path_factory.mktemp("png") / "a.png"
    damaged = bytearray(encode_png(noise()))
    damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(bytes(damaged))
    for read in (lambda: read_png(path, 8), lambda: read_any_image(path)):
        found = image_or_sentence(read)
        assert "a.png" in found if isinstance(found, str) else found.dtype == np.uint8


def test_a_missing_file_and_an_unreadable_one_are_named(tmp_path):
    with pytest.raises(BadSamples, match=r"a\.png: is missing"):
        read_png(tmp_path / "a.png", 8)
    for read in (lambda: read_png(tmp_path, 8), lambda: read_any_image(tmp_path)):
        with pytest.raises(EnvironmentFailure, match="cannot be read"):
            read()


@pytest.mark.parametrize("mode", ["1", "L", "P"])
def test_modes_with_one_meaning_are_converted(tmp_path, mode):
    image = Image.fromarray(noise()).convert(mode)
    path = save(tmp_path / "a.png", image)
    np.testing.assert_array_equal(read_any_image(path), np.asarray(image.convert("RGB")))


def test_an_alpha_channel_that_hides_nothing_is_dropped(tmp_path):
    opaque = noise(8, 4)
    opaque[..., 3] = 255
    path = save(tmp_path / "a.png", Image.fromarray(opaque))
    np.testing.assert_array_equal(read_any_image(path), opaque[..., :3])


def test_an_alpha_channel_that_hides_something_is_refused(tmp_path):
    path = save(tmp_path / "a.png", Image.fromarray(noise(8, 4)))
    with pytest.raises(BadSamples, match="put it on a background"):
        read_any_image(path)


@pytest.mark.parametrize("options", [{"format": "JPEG", "quality": 95}, {"format": "WEBP", "lossless": True}])
def test_jpeg_and_webp_are_read_as_pillow_decodes_them(tmp_path, options):
    buffer = io.BytesIO()
    Image.fromarray(noise()).save(buffer, **options)
    (tmp_path / "a").write_bytes(buffer.getvalue())
    np.testing.assert_array_equal(read_any_image(tmp_path / "a"), np.asarray(Image.open(buffer).convert("RGB")))


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr"])
def test_other_colour_spaces_are_refused_or_have_one_meaning(tmp_path, mode):
    path = save(tmp_path / "a.jpg", Image.fromarray(noise()).convert(mode))
    if mode == "CMYK":
        with pytest.raises(BadSamples, match="has the mode CMYK"):
            read_any_image(path)
    else:  # what JPEG stores anyway
        assert read_any_image(path).shape == (8, 8, 3)


def test_orientation_is_ignored(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save(tmp_path / "a.png", Image.fromarray(noise()), exif=exif)
    np.testing.assert_array_equal(read_any_image(path), noise())


def test_an_animation_is_refused(tmp_path):
    frames = [Image.fromarray(noise() ^ frame) for frame in (0, 255)]
    path = save(tmp_path / "a.png", frames[0], save_all=True, append_images=frames[1:])
    with pytest.raises(BadSamples, match="animation"):
        read_any_image(path)


def test_another_format_is_refused(tmp_path):
    path = save(tmp_path / "a.gif", Image.fromarray(noise()))
    with pytest.raises(BadSamples, match="cannot be decoded"):
        read_any_image(path)


@pytest.mark.parametrize(("size", "wanted"), [((100, 67), (48, 32)), ((64, 64), (32, 32)), ((20, 30), (32, 48))])
def test_the_short_side_is_brought_to_size_and_the_middle_kept(size: tuple[int, int], wanted: tuple[int, int]) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    scaled = image.resize(wanted, Image.Resampling.BICUBIC)
    left, top = (wanted[0] - 32) // 2, (wanted[1] - 32) // 2
    np.testing.assert_array_equal(to_square(image, 32), scaled.crop((left, top, left + 32, top + 32)))


def test_a_square_of_the_right_size_stays_as_it_is() -> None:
    image = Image.new("RGB", (32, 32))
    assert to_square(image, 32) is image


def test_the_long_side_is_rounded() -> None:
    """6 x 4 to 5 px: 7.5 px wide becomes 8 (even), where truncation would give 7."""
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    wide = Image.fromarray(pixels).resize((8, 5), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(to_square(Image.fromarray(pixels), 5), np.asarray(wide)[:, 1:6])


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow about tags of TIFF
@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "PPM"])
def test_any_change_of_an_image_is_an_image_or_a_sentence(tmp_path, form):
    rng = random.Random(form)
    whole = save(tmp_path / "whole", Image.fromarray(noise()), format=form).read_bytes()
    for _ in range(120):
        data = bytearray(whole)
        for _ in range(rng.randrange(1, 4)):
            place = rng.randrange(rng.choice([len(data), min(64, len(data))]))
            data[place : place + rng.randrange(3)] = rng.choice(
                [b"", b"\0", b"\xff\xff", b"\xff" * 4, rng.randbytes(2)]
            )
        (tmp_path / "a.png").write_bytes(bytes(data))
        found = image_or_sentence(lambda: read_any_image(tmp_path / "a.png"))
        if isinstance(found, str):
            assert re.fullmatch(r"[^\n]*a\.png: [^\n]+", found) and " at 0x" not in found
        else:
            assert found.dtype == np.uint8 and found.ndim == 3 and found.shape[2] == 3
