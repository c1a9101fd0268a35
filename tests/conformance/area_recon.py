"""Golden area `recon`: reconstruction metrics, and the transform of validation images."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from gear.data.transforms import center_crop, short_side_resize, to_array
from harness.metrics.frechet import frechet_distance, statistics
from harness.metrics.image import l1, mean_of_batch_means, psnr, ssim
from tests.conformance.case import Result, Unsupported, check, check_equal, grid_of, load_case, pooled

AREA = "recon"

Meta = dict[str, Any]
Arrays = dict[str, np.ndarray]


def run(path: Path) -> list[Result] | None:
    meta, arrays = load_case(path)
    if {"images", "recon_noise", "projection"} <= set(arrays):
        return check_metrics(meta, arrays)
    if "image_0" in arrays:
        return list(check_transform(meta, arrays))
    if "expected" in meta:
        raise Unsupported("a kind of case this checker does not know")
    return None


def check_metrics(meta: Meta, arrays: Arrays) -> list[Result]:
    pixels = arrays["images"].astype(np.float32) / np.float32(127.5) - np.float32(1)
    images_01, recon_01 = to_01(pixels), to_01(pixels + arrays["recon_noise"])
    features = [stub_features(x, arrays["projection"], meta.get("what", "")) for x in (images_01, recon_01)]
    fitted = [statistics(rows, mean_dtype=np.float32) for rows in features]
    values = {
        "l1": mean_of_batch_means(l1(images_01, recon_01), meta["batch_size"]),
        "psnr": mean_of_batch_means(psnr(images_01, recon_01), meta["batch_size"]),
        "ssim": float(ssim(images_01, recon_01).mean()),
        "fid": frechet_distance(*fitted).value,
    }
    results = []
    for name, wanted in meta["expected"].items():
        metric = name.removeprefix("vq_val/")
        kind, number = meta["tolerance"][metric].split()
        limit = {"rtol": float(number), "atol": 0.0} if kind == "rel" else {"atol": float(number)}
        results.append(check(name, values[metric], wanted, **limit))
    return results


def to_01(pixels: np.ndarray) -> np.ndarray:
    """Clamp to -1..1, then to 0..1, in float32 and never rounded to uint8."""
    return (np.clip(pixels, -1.0, 1.0) + np.float32(1)) / np.float32(2)


def stub_features(images_01: np.ndarray, projection: np.ndarray, description: str) -> np.ndarray:
    """(N, C, H, W) -> pooled to the grid of the description, flattened channel first, projected."""
    grid = grid_of([description], len(projection) // images_01.shape[1])
    return pooled(images_01, grid).reshape(len(images_01), -1) @ projection


def check_transform(meta: Meta, arrays: Arrays) -> Iterator[Result]:
    size = meta["image_size"]
    for name, wanted in arrays.items():
        found = re.fullmatch(r"(bicubic|bilinear)_(\d+)", name)
        if found:
            image = Image.fromarray(arrays[f"image_{found[2]}"])
            resized = short_side_resize(image, size, resample=found[1])  # type: ignore[arg-type]
            yield check_equal(name, to_array(center_crop(resized, size)), wanted)
