"""EfficientNet-Lite0 features of the demo."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from efficientnet_lite_pytorch import EfficientNet

from benchmarks.demo.lite0 import FEATURE_DIM, INPUT_SIZE, WEIGHTS, Lite0Features, fold_batch_norms, preprocess


@pytest.fixture(scope="module")
def network() -> Lite0Features:
    return Lite0Features()


def noise(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


def test_features_are_pooled_activations_of_the_last_convolution(network: Lite0Features) -> None:
    features = network(noise(3))
    assert features.shape == (3, FEATURE_DIM)
    assert features.dtype == np.float32
    assert (features >= 0).all()  # it ends in a ReLU6
    assert (features <= 6).all()


def test_features_do_not_depend_on_the_batch(network: Lite0Features) -> None:
    images_u8 = noise(19)
    together = network(images_u8)
    alone = np.concatenate([network(images_u8[i : i + 1]) for i in range(len(images_u8))])
    np.testing.assert_allclose(together, alone, atol=1e-4)


def test_folding_the_batch_norms_leaves_the_function() -> None:
    plain = EfficientNet.from_name("efficientnet-lite0", image_size=INPUT_SIZE).eval()
    plain.load_state_dict(torch.load(WEIGHTS, map_location="cpu", weights_only=True))
    pixels = preprocess(noise(2))
    with torch.no_grad():
        before = plain.extract_features(pixels)
        after = fold_batch_norms(plain).extract_features(pixels)  # type: ignore[operator]
    torch.testing.assert_close(after, before, atol=1e-4, rtol=1e-4)


def test_images_are_enlarged_and_scaled_as_in_training() -> None:
    white = np.full((1, 32, 32, 3), 255, np.uint8)
    pixels = preprocess(white)
    assert pixels.shape == (1, 3, INPUT_SIZE, INPUT_SIZE)
    torch.testing.assert_close(pixels, torch.ones_like(pixels))


def test_channels_are_red_green_blue() -> None:
    red = np.zeros((1, 32, 32, 3), np.uint8)
    red[..., 0] = 255
    pixels = preprocess(red)
    assert pixels[0, 0].min() > 0.99
    assert pixels[0, 1:].max() < -0.99
