"""L1, PSNR and SSIM per image."""

from __future__ import annotations

import numpy as np
import pytest

from harness.metrics.image import l1, mean_of_batch_means, psnr, ssim


@pytest.fixture
def images_01() -> np.ndarray:
    return np.random.default_rng(0).random((3, 3, 20, 24))


def test_an_image_equals_itself(images_01: np.ndarray) -> None:
    np.testing.assert_array_equal(l1(images_01, images_01), 0.0)
    np.testing.assert_allclose(psnr(images_01, images_01), 120.0)
    np.testing.assert_allclose(ssim(images_01, images_01), 1.0)


def test_a_constant_offset_has_the_closed_form(images_01: np.ndarray) -> None:
    moved = images_01 + 0.1
    np.testing.assert_allclose(l1(images_01, moved), 0.1)
    np.testing.assert_allclose(psnr(images_01, moved), 20.0)


def test_every_image_has_its_own_value(images_01: np.ndarray) -> None:
    recon = images_01.copy()
    recon[1] = 0.5
    for metric, best in ((l1, 0.0), (psnr, 120.0), (ssim, 1.0)):
        values = metric(images_01, recon)
        np.testing.assert_allclose(values[[0, 2]], best)
        assert values[1] != pytest.approx(best)


def test_ssim_is_the_windows_statistics_written_out() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.random((1, 1, 9, 8)), rng.random((1, 1, 9, 8))
    windows = [(i, j) for i in range(3) for j in range(2)]
    values = []
    for i, j in windows:
        a, b = (z[0, 0, i : i + 7, j : j + 7].ravel() for z in (x, y))
        covariance = np.cov(a, b)
        luminance = (2 * a.mean() * b.mean() + 1e-4) / (a.mean() ** 2 + b.mean() ** 2 + 1e-4)
        values.append(luminance * (2 * covariance[0, 1] + 9e-4) / (covariance[0, 0] + covariance[1, 1] + 9e-4))
    np.testing.assert_allclose(ssim(x, y), np.mean(values), rtol=1e-12)


def test_ssim_falls_with_noise(images_01: np.ndarray) -> None:
    noise = np.random.default_rng(2).normal(size=images_01.shape)
    assert (ssim(images_01, images_01 + 0.05 * noise) > ssim(images_01, images_01 + 0.2 * noise)).all()


def test_a_short_last_batch_weighs_as_much_as_a_full_one() -> None:
    assert mean_of_batch_means(np.array([0.0, 0.0, 0.0, 3.0]), 3) == 1.5


def test_images_of_different_shapes_are_refused(images_01: np.ndarray) -> None:
    with pytest.raises(ValueError, match="one shape"):
        psnr(images_01, images_01[:, :, :10])


def test_an_image_smaller_than_the_window_is_refused() -> None:
    with pytest.raises(ValueError, match="fit into the image"):
        ssim(np.zeros((1, 1, 6, 9)), np.zeros((1, 1, 6, 9)))
