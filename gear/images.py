"""Read and write single images, for use from Python: `gear.load_image`, `gear.save_image`."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from gear.data.base import BadSample
from gear.data.images import open_rgb
from gear.data.transforms import center_crop, short_side_resize, to_array
from gear.sampling.pixels import to_u8
from harness.contract.errors import UserError
from harness.contract.files import write_atomically


def load_image(path: str | Path, image_size: int) -> Tensor:
    """An image file as pixels (1, 3, image_size, image_size), float32 in [-1, 1]: resized (bicubic), centre-cropped.

    16-bit gray is scaled to 8 bits; EXIF orientation is ignored (`harness.contract.images.to_rgb`).
    Raises UserError when the file is missing or not an image, has transparent pixels, or values of no known range.
    """
    try:
        image = center_crop(short_side_resize(open_rgb(Path(path)), image_size), image_size)
    except BadSample as error:
        raise UserError(f"{path} cannot be read as an image ({error}); give a PNG, JPEG or WebP file.") from None
    return torch.from_numpy(to_array(image))[None].float() / 127.5 - 1.0


def save_image(pixels: Tensor, path: str | Path) -> Path:
    """Write pixels (3, H, W) or (1, 3, H, W) in [-1, 1] as a PNG; values beyond the range are clipped."""
    if pixels.ndim == 3:
        pixels = pixels[None]
    if pixels.ndim != 4 or pixels.shape[:2] != (1, 3):
        raise ValueError(f"save_image takes one image (3, H, W), not {tuple(pixels.shape)}")
    image_u8 = to_u8(pixels.detach().float())[0].cpu().numpy()  # (H, W, 3)
    path = Path(path)
    with write_atomically(path) as stream:
        Image.fromarray(image_u8).save(stream, format="PNG")
    return path
