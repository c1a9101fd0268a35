"""Pairs of originals and reconstructions, unrounded, as the benchmark `recon` reads them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gear.data.transforms import Filter
from gear.reconstruct import check_image_size, open_images, reconstruct_batch
from gear.tokenizers import Tokenizer
from harness.contract.files import write_json
from harness.contract.npz import NpzStreamWriter
from harness.contract.progress import Progress


def write_pairs(
    tokenizer: Tokenizer,
    images: str,
    out_dir: Path,
    image_size: int,
    *,
    resample: Filter = "bicubic",
    limit: int = 0,
    made: Mapping[str, Any],
) -> int:
    """Reconstruct images and write `originals.npz` (uint8), `reconstructions.npz` (float32 in [0, 1], clamped, never
    rounded) and, last, `pairs.json`; both arrays are (N, H, W, 3). Returns N.

    One batch is held at a time; 50,000 images of 256 px take 49 GB of disk. `made` says how, for the record.
    """
    check_image_size(tokenizer, image_size)
    pictures = open_images(images, image_size, limit, resample=resample)
    count, progress = len(pictures.names), Progress(len(pictures.names), "images")
    tail = (*pictures.read(0).shape,)
    out_dir.mkdir(parents=True, exist_ok=True)
    with (
        NpzStreamWriter(out_dir / "originals.npz", count=count, shape_tail=tail) as originals,
        NpzStreamWriter(out_dir / "reconstructions.npz", count=count, shape_tail=tail, dtype=np.float32) as recons,
    ):
        for names, images_u8 in pictures.batches():
            recon, _ = reconstruct_batch(tokenizer, images_u8)
            recon_01 = (recon.clamp(-1.0, 1.0) + 1.0) / 2.0
            originals.append(images_u8)
            recons.append(np.ascontiguousarray(recon_01.permute(0, 2, 3, 1).numpy()))
            progress.advance(len(names))
    row = {"format": "pair-set", "schema_version": 1, "count": count, "image_size": image_size, **made}
    write_json(out_dir / "pairs.json", {**row, "resize": resample})
    return count
