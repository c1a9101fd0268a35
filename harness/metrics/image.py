"""Per-image distances between originals and reconstructions: L1, PSNR, SSIM.

`images_01` are (N, C, H, W) floats in [0, 1], not rounded to uint8. Every function returns one float64 value per image,
so that the caller chooses how to average: `mean()` weighs images alike, `mean_of_batch_means` is what the reference
reports.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

MSE_FLOOR = 1e-12
"""Caps PSNR at 120 dB for an image that is reproduced exactly."""


def l1(images_01: Array, recon_01: Array) -> Array:
    """Mean absolute difference over channels and pixels: (N,)."""
    a, b = _pair(images_01, recon_01)
    return np.abs(a - b).mean(axis=(1, 2, 3))


def psnr(images_01: Array, recon_01: Array) -> Array:
    """Peak signal-to-noise ratio in dB, peak 1, at most 120: (N,)."""
    a, b = _pair(images_01, recon_01)
    mse = np.square(a - b).mean(axis=(1, 2, 3))
    return -10.0 * np.log10(np.maximum(mse, MSE_FLOOR))


def ssim(images_01: Array, recon_01: Array, *, window: int = 7, k1: float = 0.01, k2: float = 0.03) -> Array:
    """Structural similarity (Wang et al. 2004) with scikit-image's defaults and data range 1: (N,).

    A uniform window, sample covariance (divisor window^2 - 1), the border of window // 2 pixels left out, then the mean
    over pixels and channels. Raises ValueError for an even window or an image smaller than the window.
    """
    a, b = _pair(images_01, recon_01)
    if window % 2 == 0 or min(a.shape[2:]) < window:
        raise ValueError(f"the SSIM window must be odd and fit into the image, got {window} for {a.shape[2:]}")
    return np.array([_ssim_of_one(x, y, window, k1**2, k2**2) for x, y in zip(a, b, strict=True)])


def _ssim_of_one(x: Array, y: Array, window: int, c1: float, c2: float) -> float:
    """(C, H, W) twice -> SSIM. One image at a time keeps the five filtered copies small."""
    from scipy.ndimage import uniform_filter

    filtered = [uniform_filter(plane, size=(1, window, window)) for plane in (x, y, x * x, y * y, x * y)]
    border = window // 2
    mean_x, mean_y, xx, yy, xy = (plane[:, border:-border, border:-border] for plane in filtered)
    unbiased = window**2 / (window**2 - 1)
    variance_x, variance_y = unbiased * (xx - mean_x**2), unbiased * (yy - mean_y**2)
    covariance = unbiased * (xy - mean_x * mean_y)
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * covariance + c2) / (variance_x + variance_y + c2)
    return float((luminance * structure).mean())


def mean_of_batch_means(values: Array, batch_size: int) -> float:
    """(N,) -> mean over consecutive batches of the batch means: a short last batch weighs as much as a full one."""
    starts = range(0, len(values), batch_size)
    return float(np.mean([np.mean(values[start : start + batch_size]) for start in starts]))


def _pair(images_01: Array, recon_01: Array) -> tuple[Array, Array]:
    if images_01.ndim != 4 or images_01.shape != recon_01.shape:
        raise ValueError(f"images must be (N, C, H, W) of one shape, got {images_01.shape} and {recon_01.shape}")
    return images_01.astype(np.float64), recon_01.astype(np.float64)
