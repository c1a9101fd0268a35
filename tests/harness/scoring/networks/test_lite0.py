"""EfficientNet-Lite0 features, as the demo takes them."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest


@pytest.fixture(scope="module")
def lite0() -> ModuleType:
    """The module, which imports PyTorch."""
    from harness.scoring.networks import lite0

    return lite0


@pytest.fixture(scope="module")
def network(lite0: ModuleType) -> Any:
    return lite0.Lite0Features()


def noise(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


def test_features_are_pooled_activations_of_the_last_convolution(network: Any) -> None:
    features = network(noise(3))
    assert features.shape == (3, 1280)
    assert features.dtype == np.float32
    assert (features >= 0).all()  # it ends in a ReLU6
    assert (features <= 6).all()


def test_features_do_not_depend_on_the_batch(network: Any) -> None:
    images_u8 = noise(19)
    together = network(images_u8)
    alone = np.concatenate([network(images_u8[i : i + 1]) for i in range(len(images_u8))])
    np.testing.assert_allclose(together, alone, atol=1e-4)


def test_folding_the_batch_norms_leaves_the_function(lite0: ModuleType) -> None:
    import torch

    plain = lite0.load_lite0(image_size=lite0.INPUT_SIZE)
    pixels = lite0.preprocess(noise(2))
    with torch.no_grad():
        before = plain.extract_features(pixels)
        after = lite0.fold_batch_norms(plain).extract_features(pixels)
    torch.testing.assert_close(after, before, atol=1e-4, rtol=1e-4)


def test_images_are_enlarged_and_scaled_as_in_training(lite0: ModuleType) -> None:
    import torch

    white = np.full((1, 32, 32, 3), 255, np.uint8)
    pixels = lite0.preprocess(white)
    assert pixels.shape == (1, 3, 128, 128)
    torch.testing.assert_close(pixels, torch.ones_like(pixels))


def test_channels_are_red_green_blue(lite0: ModuleType) -> None:
    red = np.zeros((1, 32, 32, 3), np.uint8)
    red[..., 0] = 255
    pixels = lite0.preprocess(red)
    assert pixels[0, 0].min() > 0.99
    assert pixels[0, 1:].max() < -0.99
