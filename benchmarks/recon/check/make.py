"""How this gold check was made: `python -m benchmarks.recon.check.make`, in the project's own environment.

Twelve smooth pictures and noisy copies of them, with the sparse Inception weights of coco's gold check. The printed
values, which `benchmark.yaml` expects, come from the definitions written out: SSIM by loops over windows, the distance
by SciPy's `sqrtm`; the Inception network is the scorer's own, which the golden cases compare with the reference.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import scipy.linalg
import torch
from PIL import Image

from harness.scoring.networks.inception import InceptionV3

FOLDER = Path(__file__).parent
WEIGHTS = FOLDER.parents[1] / "coco" / "check" / "assets" / "fid-inception" / "pt_inception-2015-12-05-6726825d.pth"
BATCH = 5
COUNT, SIZE = 12, 32
Array = Any


def main() -> None:
    generator = np.random.default_rng(3)
    originals = np.stack([smooth_picture(generator) for _ in range(COUNT)])
    noise = generator.normal(0.0, np.linspace(0.01, 0.08, len(originals))[:, None, None, None], originals.shape)
    recon = (originals / 255.0 + noise).clip(0.0, 1.0).astype(np.float32)
    (FOLDER / "samples").mkdir(exist_ok=True)
    np.savez_compressed(FOLDER / "samples" / "originals.npz", arr_0=originals)
    np.savez(FOLDER / "samples" / "reconstructions.npz", arr_0=recon)
    real, ours = originals.astype(np.float32) / np.float32(255.0), recon
    mse = np.square(real.astype(np.float64) - ours).mean(axis=(1, 2, 3))
    print(
        {
            "rfid": fid(features(real), features(ours)),
            "psnr": batch_means(20.0 * np.log10(1.0 / np.sqrt(mse))),
            "ssim": float(np.mean([ssim(a, b) for a, b in zip(real, ours, strict=True)])),
            "l1": batch_means(np.abs(real.astype(np.float64) - ours).mean(axis=(1, 2, 3))),
        }
    )


def smooth_picture(generator: Any) -> Array:
    """(SIZE, SIZE, 3) uint8."""
    small = generator.uniform(0, 255, (4, 4, 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(small).resize((SIZE, SIZE), Image.Resampling.BICUBIC))


def fid(a: Array, b: Array) -> float:
    """As pytorch-fid has it, with its nudge for singular products."""
    covariances = [np.cov(x, rowvar=False) for x in (a, b)]
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1])
    if not np.isfinite(root).all():
        nudge = 1e-6 * np.eye(len(root))
        root = scipy.linalg.sqrtm((covariances[0] + nudge) @ (covariances[1] + nudge))
    difference = a.mean(axis=0) - b.mean(axis=0)
    traces = sum(np.trace(covariance) for covariance in covariances)
    return float(difference @ difference + traces - 2.0 * np.trace(np.real(root)))


def features(images_01: Array) -> Array:
    network = InceptionV3()
    network.load_state_dict(torch.load(WEIGHTS, map_location="cpu", weights_only=True))
    batch = torch.from_numpy(images_01).permute(0, 3, 1, 2)
    return np.concatenate([network(part).numpy() for part in batch.split(4)])


def batch_means(values: Array) -> float:
    return float(np.mean([values[start : start + BATCH].mean() for start in range(0, len(values), BATCH)]))


def ssim(a: Array, b: Array) -> float:
    """Over every 7 x 7 window and channel, covariances with divisor 48."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    values = []
    for channel in range(3):
        for y in range(a.shape[0] - 6):
            for x in range(a.shape[1] - 6):
                p, q = a[y : y + 7, x : x + 7, channel].ravel(), b[y : y + 7, x : x + 7, channel].ravel()
                (vp, cov), (_, vq) = np.cov(p, q)
                top = (2 * p.mean() * q.mean() + 1e-4) * (2 * cov + 9e-4)
                values.append(top / ((p.mean() ** 2 + q.mean() ** 2 + 1e-4) * (vp + vq + 9e-4)))
    return float(np.mean(values))


if __name__ == "__main__":
    main()
