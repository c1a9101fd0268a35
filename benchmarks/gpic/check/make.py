"""How this gold check was made: `python -m benchmarks.gpic.check.make`, in the project's own environment.

A small network of DINOv2's architecture with random weights, 120 reference and 100 drawn images. The printed values,
which `benchmark.yaml` expects, come from a plain transcription of the published procedure that shares no code with the
scorer: torch functions for the network, SciPy's `sqrtm`, distances by subtraction.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import scipy.linalg
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from harness.contract.adopt import sample_set_from_npz

FOLDER = Path(__file__).parent
WIDTH, DEPTH, PATCH, TABLE = 64, 2, 14, 17
SEED = 0
Array = Any


def main() -> None:
    weights = random_weights()
    write_weights(weights, FOLDER / "assets" / "dinov2-vitl14" / "dinov2_vitl14_pretrain.pth")
    reference, sample = (blobs(count, seed) for count, seed in ((120, 1), (100, 2)))
    embeddings, features = (forward(images, weights) for images in (reference, sample))
    write_reference(embeddings)
    write_samples(sample)
    print(evaluate(embeddings, features))


def random_weights() -> dict[str, Tensor]:
    """With the keys of Meta's checkpoint; in half precision, to be small."""
    torch.manual_seed(SEED)
    shapes = {
        "cls_token": (1, 1, WIDTH),
        "pos_embed": (1, 1 + TABLE * TABLE, WIDTH),
        "mask_token": (1, WIDTH),
        "patch_embed.proj.weight": (WIDTH, 3, PATCH, PATCH),
        "patch_embed.proj.bias": (WIDTH,),
        "norm.weight": (WIDTH,),
        "norm.bias": (WIDTH,),
    }
    for block in range(DEPTH):
        for name, size in (("attn.qkv", 3), ("attn.proj", 1), ("mlp.fc1", 4)):
            shapes[f"blocks.{block}.{name}.weight"] = (size * WIDTH, WIDTH)
            shapes[f"blocks.{block}.{name}.bias"] = (size * WIDTH,)
        shapes[f"blocks.{block}.mlp.fc2.weight"] = (WIDTH, 4 * WIDTH)
        shapes[f"blocks.{block}.mlp.fc2.bias"] = (WIDTH,)
        for name in ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias", "ls1.gamma", "ls2.gamma"):
            shapes[f"blocks.{block}.{name}"] = (WIDTH,)
    weights = {}
    for key, shape in shapes.items():
        scale = 1.0 / np.sqrt(np.prod(shape[1:])) if len(shape) > 1 and "weight" in key else 0.3
        offset = 1.0 if ("norm" in key and "weight" in key) or "gamma" in key else 0.0
        weights[key] = (offset + scale * torch.randn(shape)).half()
    return weights


def write_weights(weights: dict[str, Tensor], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(weights, path)


def blobs(count: int, seed: int) -> Array:
    """Smooth colour fields with a bright square somewhere: (count, 16, 16, 3) uint8."""
    generator = np.random.default_rng(seed)
    small = generator.uniform(0, 255, (count, 3, 3, 3)).astype(np.uint8)
    images = np.stack(
        [np.asarray(Image.fromarray(image).resize((16, 16), Image.Resampling.BICUBIC)) for image in small]
    )
    images = images.copy()
    for image, (y, x, side) in zip(images, generator.integers((0, 0, 3), (10, 10, 7), (count, 3)), strict=True):
        image[y : y + side, x : x + side] = generator.integers(0, 256, 3)
    return images


def forward(images_u8: Array, weights: dict[str, Tensor]) -> Array:
    """DINOv2's class token, written out: (n, H, W, 3) uint8 -> (n, WIDTH) float32."""
    w = {key: value.float() for key, value in weights.items()}
    pictures = [Image.fromarray(image).resize((224, 224), Image.Resampling.BICUBIC) for image in images_u8]
    x = torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures])).permute(0, 3, 1, 2) / 255.0
    x = (x - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    x = F.conv2d(x, w["patch_embed.proj.weight"], w["patch_embed.proj.bias"], stride=PATCH).flatten(2).transpose(1, 2)
    table = w["pos_embed"][:, 1:].reshape(1, TABLE, TABLE, WIDTH).permute(0, 3, 1, 2)
    table = F.interpolate(table, scale_factor=(224 // PATCH + 0.1) / TABLE, mode="bicubic")
    cls = (w["cls_token"] + w["pos_embed"][:, :1]).expand(len(x), 1, WIDTH)
    x = torch.cat([cls, x + table.flatten(2).transpose(1, 2)], dim=1)
    for block in range(DEPTH):
        p = {key.removeprefix(f"blocks.{block}."): value for key, value in w.items()}
        normed = F.layer_norm(x, (WIDTH,), p["norm1.weight"], p["norm1.bias"], 1e-6)
        q, k, v = F.linear(normed, p["attn.qkv.weight"], p["attn.qkv.bias"]).chunk(3, dim=-1)
        mixed = torch.softmax(q @ k.transpose(1, 2) / 8.0, dim=-1) @ v  # one head of 64
        x = x + p["ls1.gamma"] * F.linear(mixed, p["attn.proj.weight"], p["attn.proj.bias"])
        normed = F.layer_norm(x, (WIDTH,), p["norm2.weight"], p["norm2.bias"], 1e-6)
        hidden = F.gelu(F.linear(normed, p["mlp.fc1.weight"], p["mlp.fc1.bias"]))
        x = x + p["ls2.gamma"] * F.linear(hidden, p["mlp.fc2.weight"], p["mlp.fc2.bias"])
    return F.layer_norm(x, (WIDTH,), w["norm.weight"], w["norm.bias"], 1e-6)[:, 0].numpy()


def write_reference(embeddings: Array) -> None:
    path = FOLDER / "assets" / "gpic-reference" / "test_stats.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    mean, covariance = embeddings.astype(np.float64).mean(axis=0), np.cov(embeddings, rowvar=False)
    np.savez(path, dino_mu=mean, dino_sigma=covariance, dino_embeddings=embeddings)


def write_samples(images_u8: Array) -> None:
    archive = FOLDER / "drawn.npz"
    np.savez(archive, arr_0=images_u8)
    sample_set_from_npz(archive, FOLDER / "samples", generator={"name": "made for the gold check"})
    archive.unlink()


def evaluate(reference: Array, sample: Array) -> dict[str, float]:
    """FD by sqrtm, MMD and PRDC by loops that follow the definitions."""
    x, y = reference.astype(np.float64), sample.astype(np.float64)
    covariances = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1])
    mean_term = float(np.square(x.mean(axis=0) - y.mean(axis=0)).sum())
    fd_sigma = float(np.trace(covariances[0]) + np.trace(covariances[1]) - 2.0 * np.trace(np.real(root)))
    generator = np.random.RandomState(SEED)
    mmds = [mmd(x[generator.choice(len(x), len(y), replace=False)],
                y[generator.choice(len(y), len(y), replace=False)]) for _ in range(100)]  # fmt: skip
    x = x[generator.choice(len(x), len(y), replace=False)]
    within_x, within_y, between = distances(x, x), distances(y, y), distances(x, y)
    radii_x, radii_y = (np.sort(within, axis=1)[:, 5] for within in (within_x, within_y))
    return {
        "fd": mean_term + fd_sigma,
        "fd_mu": mean_term,
        "fd_sigma": fd_sigma,
        "mmd": float(np.mean(mmds)),
        "precision": float((between < radii_x[:, None]).any(axis=0).mean()),
        "recall": float((between < radii_y[None, :]).any(axis=1).mean()),
        "density": float((between < radii_x[:, None]).sum(axis=0).mean() / 5),
        "coverage": float((between.min(axis=1) < radii_x).mean()),
    }


def distances(a: Array, b: Array) -> Array:
    return np.sqrt(np.square(a[:, None] - b[None]).sum(axis=2))


def mmd(x: Array, y: Array) -> float:
    m, kernel = len(x), lambda a, b: (a @ b.T / a.shape[1] + 1.0) ** 3
    xx, yy, xy = kernel(x, x), kernel(y, y), kernel(x, y)
    within = xx.sum() - np.trace(xx) + yy.sum() - np.trace(yy)
    return float(within / (m * (m - 1)) - 2.0 * xy.sum() / m**2)


if __name__ == "__main__":
    main()
