"""Single images as files: strict 8-bit RGB PNG for sample sets, a lenient reader for other people's folders, and the
one rule by which every reader turns an image of any mode into RGB: `to_rgb`."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from harness.contract.errors import BadSamples, EnvironmentFailure
from harness.contract.files import PathLike
from harness.contract.walk import kind_of_bytes

_PNG_START = struct.Struct(">8s4s4sIIBB")  # signature, length and name of IHDR, width, height, bit depth, colour type
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_RGB = 2
_SIXTEEN_BIT_AS_I = {"PNG", "PPM"}
"""Formats without larger integers, whose 16 bits some versions of Pillow open in the mode I."""
_TIFF_BITS = 258  # the tag BitsPerSample
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "PPM")
_ON_WHITE = (
    "put it on a background and save it as RGB: im = Image.open(f).convert('RGBA'); "
    "Image.alpha_composite(Image.new('RGBA', im.size, 'white'), im).convert('RGB')"
)
_SCALE = "scale it to 8 bits: Image.fromarray((np.asarray(Image.open(f)) // 257).astype('uint8')).convert('RGB')"
_WITH_ALPHA = {4, 6}
_COLOUR_TYPES = {0: "grayscale", 2: "RGB", 3: "palette", 4: "grayscale with alpha", 6: "RGB with alpha"}


def encode_png(image_u8: np.ndarray) -> bytes:
    """Encode one image, (H, W, 3) uint8, without loss."""
    buffer = io.BytesIO()
    # Run lengths suit filtered pictures: measured at 512 px, as small as zlib's level 6 and two to five times faster.
    Image.fromarray(image_u8).save(buffer, format="PNG", compress_type=zlib.Z_RLE)
    return buffer.getvalue()


def read_png(path: PathLike, image_size: int) -> np.ndarray:
    """Read an 8-bit RGB PNG of image_size x image_size as (H, W, 3) uint8, refusing everything else.

    The header is judged from its bytes before anything is decoded: Pillow would silently turn 16 bits into 8,
    and an absurdly large picture must not be decoded.

    Raises:
        BadSamples: naming the file and what it is instead.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except FileNotFoundError as reason:
        raise BadSamples(f"{path}: is missing; copy the whole folder again, or draw the samples again.") from reason
    except OSError as reason:
        raise EnvironmentFailure(
            f"{path}: cannot be read ({reason.strerror}); check its permissions and the disk."
        ) from reason
    _check_png_start(data, path, image_size)
    return _decode(data, path)


def read_any_image(path: PathLike) -> np.ndarray:
    """Read somebody else's image (PNG, JPEG, WebP, BMP, TIFF, PPM) as (H, W, 3) uint8.

    Grayscale and palette images have one meaning as RGB and are converted. Transparency has several, and a sample of
    more than 8 bits is not what the generator drew, so both are refused.

    Raises:
        BadSamples: naming the file and how to convert it.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as reason:
        raise EnvironmentFailure(
            f"{path}: cannot be read ({reason.strerror}); check its permissions and the disk."
        ) from reason
    return _decode(data, path)


class UnclearImage(ValueError):
    """An image that has no single meaning as 8-bit RGB. The message says what it is and what to do."""


def to_rgb(image: Image.Image, *, drop_alpha: bool = False) -> Image.Image:
    """An opened image of any mode as 8-bit RGB.

    16-bit gray is scaled, 65,535 to 255: Pillow's own conversion cuts it off at 255, which turns it white. Pixels are
    taken as they are stored and EXIF orientation is ignored, as by the programs whose numbers are published; only TIFF,
    whose orientation is not EXIF, is turned by Pillow.

    Args:
        image: as opened; it is decoded here.
        drop_alpha: take the colours beneath the transparent pixels of RGBA, as the published training does. In other
            modes these are a placeholder, mostly black or white.
    Raises:
        UnclearImage: pixels are transparent, or values (32-bit integers, floats) have no known range.
    """
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in _SIXTEEN_BIT_AS_I):
        return _from_sixteen_bits(image)
    if image.mode in {"I", "F"}:
        kind = "32-bit integers" if image.mode == "I" else "floating-point numbers"
        raise UnclearImage(f"its pixels are {kind} of no known range; scale them to 0..255 and save it with 8 bits")
    if image.mode in {"RGBa", "La"}:
        image = image.convert({"RGBa": "RGBA", "La": "LA"}[image.mode])
    if image.mode == "RGBA" and drop_alpha:
        return image.convert("RGB")
    if image.mode in {"RGBA", "LA", "PA"} or "transparency" in image.info:
        rgba = image.convert("RGBA")
        if rgba.getchannel("A").getextrema() != (255, 255):
            raise UnclearImage(f"it has transparent pixels; {_ON_WHITE}")
        return rgba.convert("RGB")
    return image.convert("RGB")


def _from_sixteen_bits(image: Image.Image) -> Image.Image:
    bits = getattr(image, "tag_v2", {}).get(_TIFF_BITS, (16,))[0]
    values = np.asarray(image).astype(np.int64)
    if bits != 16 or "transparency" in image.info:
        raise UnclearImage(f"it is gray of {bits} bits, or with a transparent value; save it as RGB with 8 bits")
    return Image.fromarray(((values * 255 + 32_767) // 65_535).astype(np.uint8)).convert("RGB")


def to_square(image: Image.Image, size: int) -> Image.Image:
    """The short side becomes `size` (the long one rounded), bicubic, then the middle size x size pixels.

    The published COCO figures resize real and generated images like this. The transforms of training and of tokenizer
    reconstruction differ: they truncate the long side.
    """
    width, height = image.size
    if (width, height) == (size, size):
        return image
    short = min(width, height)
    if short != size:
        scaled = (max(size, round(width * size / short)), max(size, round(height * size / short)))
        image = image.resize(scaled, Image.Resampling.BICUBIC)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return image.crop((left, top, left + size, top + size))


def _check_png_start(data: bytes, path: Path, image_size: int) -> None:
    if not data.startswith(_SIGNATURE):
        raise BadSamples(f"{path}: is not a PNG file; save the image as 8-bit RGB PNG.")
    if len(data) < _PNG_START.size:
        raise BadSamples(f"{path}: is cut short; copy or draw it again.")
    _, _, _, width, height, depth, colour = _PNG_START.unpack_from(data)
    if (width, height) != (image_size, image_size):
        raise BadSamples(f"{path}: is {width}x{height} pixels, not {image_size}x{image_size}; draw or resize it again.")
    if colour != _RGB or depth != 8:
        kind = _COLOUR_TYPES.get(colour, "of an unknown colour type")
        raise BadSamples(f"{path}: is {kind} at {depth} bits, not 8-bit RGB; {_how_to_convert(colour, depth)}.")


def _how_to_convert(colour: int, depth: int) -> str:
    """Pillow's convert('RGB') cuts 16-bit gray off at 255, and shows what transparency hides."""
    if colour in _WITH_ALPHA:
        return _ON_WHITE
    return _SCALE if depth == 16 and colour == 0 else "convert it: Image.open(f).convert('RGB')"


def _decode(data: bytes, path: Path) -> np.ndarray:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
                if (bits := _bits(image, data)) > 8:
                    raise BadSamples(
                        f"{path}: has {bits} bits per channel; save it with 8, the values scaled to 0..255."
                    )
                image.load()
                return np.asarray(_opaque_rgb(image, path))
    except BadSamples:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as reason:
        raise BadSamples(f"{path}: is too large to be a sample ({reason}); draw it at the size of the set.") from reason
    except UnidentifiedImageError as reason:  # its own text holds the address of an object
        kind = kind_of_bytes(data)
        what = f"is a {kind} image; convert it to PNG" if kind else "is not an image; remove it, or draw it again"
        raise BadSamples(f"{path}: cannot be decoded: it {what}.") from reason
    except Exception as reason:  # for a damaged file Pillow raises whatever the damaged part happens to cause
        raise BadSamples(
            f"{path}: cannot be decoded ({reason}); it is damaged or cut short, copy or draw it again."
        ) from reason


def _bits(image: Image.Image, data: bytes) -> int:
    """Bits per channel as the file has them: Pillow halves 16 silently for colours, and whitens 16-bit grey."""
    if image.format == "PNG":
        return data[24]
    if image.format == "TIFF":
        return int(max(image.tag_v2.get(_TIFF_BITS, (1,))))  # type: ignore[attr-defined]
    tiles = image.tile if isinstance(image, ImageFile.ImageFile) else []
    codec, _, _, details = tiles[0] if tiles else ("", None, 0, None)
    if codec.startswith("ppm") and isinstance(details, tuple):  # (mode, the largest value)
        return 8 if details[1] < 256 else 16
    return 16 if image.mode.startswith(("I", "F")) else 8


def _opaque_rgb(image: Image.Image, path: Path) -> Image.Image:
    if getattr(image, "n_frames", 1) != 1:
        raise BadSamples(f"{path}: is an animation; save one frame of it.")
    if image.mode not in {"RGB", "1", "L", "P", "RGBA", "LA", "PA"}:
        raise BadSamples(f"{path}: has the mode {image.mode}, not RGB; convert it: Image.open(f).convert('RGB').")
    try:
        return to_rgb(image)
    except UnclearImage as reason:
        raise BadSamples(f"{path}: cannot be taken as a sample: {reason}.") from None
