"""Images through a tokenizer and back, with the plain reconstruction metrics."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from gear.data.digits import load_digits
from gear.data.sources import IMAGE_SUFFIXES
from gear.data.transforms import center_crop, short_side_resize
from gear.sampling.pixels import to_u8
from gear.tokenizers import Tokenizer
from harness.contract.errors import UserError
from harness.contract.files import write_atomically, write_json
from harness.metrics.image import l1, psnr, ssim

_BATCH = 32


def reconstruct(
    tokenizer: Tokenizer, images: str, out_dir: Path, image_size: int, *, limit: int = 64
) -> dict[str, float | int]:
    """Reconstruct a folder of images (or `digits`: the demo's held-out ones) and write them to `out_dir`.

    Returns the sample means of L1 (range [0, 1]), PSNR (dB) and SSIM over all images, taken before rounding to uint8.
    """
    originals, names = _read(images, image_size, limit)
    rebuilt = _through(tokenizer, originals)
    ours, theirs = (rebuilt.clip(-1.0, 1.0) + 1.0) / 2.0, originals / np.float32(255.0)
    ours_chw, theirs_chw = ours, theirs.transpose(0, 3, 1, 2)
    metrics: dict[str, float | int] = {
        "images": len(originals),
        "l1": float(np.mean(l1(ours_chw, theirs_chw))),
        "psnr": float(np.mean(psnr(ours_chw, theirs_chw))),
        "ssim": float(np.mean(ssim(ours_chw, theirs_chw))),
    }
    rebuilt_u8 = to_u8(torch.from_numpy(rebuilt)).numpy()
    for name, image in zip(names, rebuilt_u8, strict=True):
        with write_atomically(out_dir / "reconstructions" / f"{name}.png") as stream:
            Image.fromarray(image).save(stream, format="PNG")
    with write_atomically(out_dir / "pairs.npz") as stream:
        np.savez(stream, originals=originals, reconstructions=rebuilt_u8)
    with write_atomically(out_dir / "sheet.png") as stream:
        Image.fromarray(_sheet(originals[:32], rebuilt_u8[:32])).save(stream, format="PNG")
    write_json(out_dir / "metrics.json", metrics)
    return metrics


@torch.inference_mode()
def _through(tokenizer: Tokenizer, images_u8: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """(N, H, W, 3) uint8 -> reconstructions (N, 3, H, W) float32, nominally in [-1, 1]."""
    device = next(tokenizer.parameters()).device
    parts = []
    for start in range(0, len(images_u8), _BATCH):
        batch = torch.from_numpy(images_u8[start : start + _BATCH]).to(device).permute(0, 3, 1, 2)
        recon = tokenizer(batch.float() / 127.5 - 1.0).recon
        assert recon is not None
        parts.append(recon.cpu().numpy())
    return np.concatenate(parts)


def _read(images: str, image_size: int, limit: int) -> tuple[npt.NDArray[np.uint8], list[str]]:
    if images == "digits":
        held_out = load_digits("held_out").images_u8[: limit or None]
        return held_out, [f"{index:06d}" for index in range(len(held_out))]
    root = Path(images)
    paths = sorted(path for path in root.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)[: limit or None]
    if not paths:
        raise UserError(f"{root} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))}); give a folder that does.")
    loaded = []
    for path in paths:
        try:
            with Image.open(path) as opened:
                image = center_crop(short_side_resize(opened.convert("RGB"), image_size), image_size)
        except OSError as error:
            raise UserError(f"{path} cannot be read as an image ({error}); remove or replace it.") from None
        loaded.append(np.asarray(image, dtype=np.uint8))
    return np.stack(loaded), ["__".join(path.relative_to(root).with_suffix("").parts) for path in paths]


def _sheet(originals: npt.NDArray[np.uint8], rebuilt: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Pairs (original left, reconstruction right), four to a row, on white."""
    pairs = np.concatenate([originals, rebuilt], axis=2)
    framed = np.pad(pairs, ((0, 0), (2, 2), (4, 4), (0, 0)), constant_values=255)
    per_row = 4
    missing = -len(framed) % per_row
    framed = np.pad(framed, ((0, missing), (0, 0), (0, 0), (0, 0)), constant_values=255)
    rows, (height, width) = len(framed) // per_row, framed.shape[1:3]
    grid = framed.reshape(rows, per_row, height, width, 3).transpose(0, 2, 1, 3, 4)
    return grid.reshape(rows * height, per_row * width, 3)
