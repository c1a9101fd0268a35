"""Encode and decode images with a tokenizer; simple reconstruction metrics, and a sheet of pairs to look at."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from gear.data.base import BadSample
from gear.data.digits import load_digits
from gear.data.images import open_rgb
from gear.data.transforms import Filter, center_crop, short_side_resize
from gear.sampling.pixels import to_u8
from gear.tokenizers import Tokenizer
from harness.contract.errors import UserError
from harness.contract.files import write_atomically, write_json
from harness.contract.progress import Progress
from harness.contract.walk import IMAGE_SUFFIXES, find_images
from harness.metrics.image import l1, psnr, ssim

_BATCH = 32
_PAIRS = 64
"""Pairs that pairs.npz keeps; the sheet shows the first half of them."""

ImageU8 = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class NamedImages:
    """Images by name, read when they are asked for."""

    names: list[str]
    read: Callable[[int], ImageU8]
    """(H, W, 3) uint8 of an index."""

    def batches(self) -> Iterator[tuple[list[str], ImageU8]]:
        """(names, (n, H, W, 3) uint8), in order."""
        for start in range(0, len(self.names), _BATCH):
            names = self.names[start : start + _BATCH]
            yield names, np.stack([self.read(start + offset) for offset in range(len(names))])


@dataclass
class Tally:
    """Results over all batches: per-image metrics, the codes that occurred, the first pairs."""

    values: dict[str, list[float]] = field(default_factory=lambda: {"l1": [], "psnr": [], "ssim": []})
    code_ids: set[int] = field(default_factory=set)
    originals: list[ImageU8] = field(default_factory=list)
    reconstructions: list[ImageU8] = field(default_factory=list)

    def add(self, originals: ImageU8, recon: Tensor, recon_u8: ImageU8, code_ids: Tensor) -> None:
        """originals, recon_u8 (n, H, W, 3); recon (n, 3, H, W), nominally in [-1, 1]: the metrics read it unrounded."""
        theirs = originals.transpose(0, 3, 1, 2) / np.float32(255.0)
        ours = (recon.clamp(-1.0, 1.0) + 1.0).numpy() / 2.0
        for name, metric in (("l1", l1), ("psnr", psnr), ("ssim", ssim)):
            self.values[name].extend(metric(theirs, ours).tolist())
        self.code_ids.update(code_ids.unique().tolist())
        room = _PAIRS - len(self.originals)
        self.originals.extend(originals[:room])
        self.reconstructions.extend(recon_u8[:room])

    def metrics(self, num_codes: int) -> dict[str, float | int]:
        means = {name: float(np.mean(values)) for name, values in self.values.items()}
        return {"images": len(self.values["l1"]), **means, "codes_used": len(self.code_ids), "codes": num_codes}


def reconstruct(
    tokenizer: Tokenizer, images: str, out_dir: Path, image_size: int, *, limit: int = 64
) -> dict[str, float | int]:
    """Reconstruct images (a folder, a file, or `digits`: the demo's held-out ones) and write them to `out_dir`.

    Returns the sample means of L1 (range [0, 1]), PSNR (dB) and SSIM over all images, taken before rounding to uint8,
    and how many codes occurred. One batch is held at a time; limit 0 takes all images.
    """
    check_image_size(tokenizer, image_size)
    pictures = open_images(images, image_size, limit)
    tally, progress = Tally(), Progress(len(pictures.names), "images")
    for names, originals in pictures.batches():
        recon, code_ids = reconstruct_batch(tokenizer, originals)
        recon_u8 = to_u8(recon).numpy()
        for name, image in zip(names, recon_u8, strict=True):
            _write_png(out_dir / "reconstructions" / f"{name}.png", image)
        tally.add(originals, recon, recon_u8, code_ids)
        progress.advance(len(names))
    shown = np.stack(tally.originals), np.stack(tally.reconstructions)
    with write_atomically(out_dir / "pairs.npz") as stream:
        np.savez(stream, originals=shown[0], reconstructions=shown[1])
    _write_png(out_dir / "sheet.png", _sheet(shown[0][: _PAIRS // 2], shown[1][: _PAIRS // 2]))
    metrics = tally.metrics(tokenizer.config.num_codes)
    write_json(out_dir / "metrics.json", metrics)
    return metrics


def check_image_size(tokenizer: Tokenizer, image_size: int) -> None:
    """Raise UserError unless images of this side divide into tokens."""
    if image_size % tokenizer.config.downsample:
        factor = tokenizer.config.downsample
        raise UserError(f"{image_size} px do not divide into tokens of {factor} px; use a multiple with --image-size.")


def open_images(images: str, image_size: int, limit: int, *, resample: Filter = "bicubic") -> NamedImages:
    """The images of `digits`, a folder or a file. limit 0: all of them."""
    return _digits(limit) if images == "digits" else _files(Path(images), image_size, limit, resample)


@torch.inference_mode()
def reconstruct_batch(tokenizer: Tokenizer, images_u8: ImageU8) -> tuple[Tensor, Tensor]:
    """(n, H, W, 3) uint8 -> reconstructions (n, 3, H, W) float32, and code ids, on the CPU."""
    device = next(tokenizer.parameters()).device
    batch = torch.from_numpy(images_u8).to(device).permute(0, 3, 1, 2)
    code = tokenizer(batch.float() / 127.5 - 1.0)
    assert code.recon is not None
    return code.recon.float().cpu(), code.code_ids.cpu()


def _digits(limit: int) -> NamedImages:
    held_out = load_digits("held_out").images_u8[: limit or None]
    return NamedImages([f"{index:06d}" for index in range(len(held_out))], held_out.__getitem__)


def _files(root: Path, image_size: int, limit: int, resample: Filter) -> NamedImages:
    paths = _paths(root)[: limit or None]

    def read(index: int) -> ImageU8:
        try:
            resized = short_side_resize(open_rgb(paths[index]), image_size, resample=resample)
            image = center_crop(resized, image_size)
        except BadSample as error:
            raise UserError(f"{paths[index]} cannot be read as an image ({error}); remove or replace it.") from None
        return np.asarray(image, dtype=np.uint8)

    return NamedImages(_names(paths, root), read)


def _paths(root: Path) -> list[Path]:
    if root.is_file():
        return [root]
    found = find_images(root)
    found.refuse_others(root, UserError)
    if not found.taken:
        raise UserError(f"{root} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))}); give a folder that does.")
    return [root / name for name in found.taken]


def _names(paths: list[Path], root: Path) -> list[str]:
    """One flat name per image; the suffix is kept where two files differ only in it."""
    relative = [path.relative_to(root if root.is_dir() else root.parent) for path in paths]
    flat = ["__".join(path.with_suffix("").parts) for path in relative]
    twice = {name for name in flat if flat.count(name) > 1} if len(set(flat)) < len(flat) else set()
    return ["__".join(path.parts) if name in twice else name for name, path in zip(flat, relative, strict=True)]


def _write_png(path: Path, image_u8: ImageU8) -> None:
    with write_atomically(path) as stream:
        Image.fromarray(image_u8).save(stream, format="PNG")


def _sheet(originals: ImageU8, rebuilt: ImageU8) -> ImageU8:
    """Pairs (original left, reconstruction right), four to a row, on white."""
    pairs = np.concatenate([originals, rebuilt], axis=2)
    framed = np.pad(pairs, ((0, 0), (2, 2), (4, 4), (0, 0)), constant_values=255)
    per_row = 4
    missing = -len(framed) % per_row
    framed = np.pad(framed, ((0, missing), (0, 0), (0, 0), (0, 0)), constant_values=255)
    rows, (height, width) = len(framed) // per_row, framed.shape[1:3]
    grid = framed.reshape(rows, per_row, height, width, 3).transpose(0, 2, 1, 3, 4)
    return grid.reshape(rows * height, per_row * width, 3)
