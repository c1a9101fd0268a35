"""LPIPS (arXiv:1801.03924) with the VGG16 backbone: a distance between images in a frozen network's features.

The weights are two files: torchvision's VGG16 IMAGENET1K_V1, which the user fetches, and the linear heads `vgg.pth`,
which the authors' package `lpips` carries. Nothing is downloaded here.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from gear.foreign import StateDict, load_exactly, read_state_dict
from harness.contract.errors import EnvironmentFailure

log = logging.getLogger(__name__)

_HEADS_MD5 = "d507d7349b931f0638a25a48a722f98a"
"""Of the authors' `vgg.pth`, version 0.1. Version 0.0 has the same keys and shapes, but other weights."""
_SLICES = ((0, 4), (4, 9), (9, 16), (16, 23), (23, 30))
"""Ranges of torchvision's VGG16 `features`; each ends behind relu{1_2, 2_2, 3_3, 4_3, 5_3}."""
_WIDTHS = (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M")
_SLICE_CHANNELS = (64, 128, 256, 512, 512)


def packaged_heads() -> Path:
    """The linear heads inside the installed package `lpips`. Raises EnvironmentFailure when it is not installed.

    The package itself is not imported: it would load its own networks' code for one file of 7 kB.
    """
    found = importlib.util.find_spec("lpips")
    for folder in (found.submodule_search_locations or ()) if found else ():
        path = Path(folder) / "weights" / "v0.1" / "vgg.pth"
        if path.is_file():
            return path
    raise EnvironmentFailure(
        "the LPIPS loss needs the package lpips for its linear heads; install it: pip install 'gear-harness[gear]' "
        "(or name a copy of its vgg.pth: --set perceptual.lpips_weights=PATH)"
    )


class LPIPS(nn.Module):
    """Distance of two images (B, 3, H, W) in [-1, 1] -> (B, 1, 1, 1). All parameters are frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.scaling_layer = ScalingLayer()
        self.net = VGG16Features()
        for k, channels in enumerate(_SLICE_CHANNELS):
            self.add_module(f"lin{k}", LinearHead(channels))
        self.requires_grad_(False)

    @classmethod
    def from_files(cls, vgg16: Path, heads: Path) -> LPIPS:
        """The distance with the weights of two files, which must hold every key; UserError otherwise."""
        if heads.is_file() and hashlib.md5(heads.read_bytes(), usedforsecurity=False).hexdigest() != _HEADS_MD5:
            log.warning("%s is not the vgg.pth of LPIPS 0.1 (md5 %s): distances will differ.", heads, _HEADS_MD5)
        lpips = cls()
        weights = {
            **{f"scaling_layer.{name}": value for name, value in lpips.scaling_layer.state_dict().items()},
            **_backbone_weights(read_state_dict(vgg16)),
            **_head_weights(read_state_dict(heads)),
        }
        load_exactly(lpips, weights, source=f"the pair {vgg16} (VGG16) and {heads} (linear heads)")
        return lpips.eval()

    def features(self, pixels: Tensor) -> list[Tensor]:
        """The five feature maps (B, channels, height, width)."""
        return self.net(self.scaling_layer(pixels))

    def layer_distances(self, x: Tensor, y: Tensor) -> list[Tensor]:
        """The five terms of the distance, each (B, 1, 1, 1)."""
        return [
            self.get_submodule(f"lin{k}")((unit(fx) - unit(fy)).square()).mean(dim=(2, 3), keepdim=True)
            for k, (fx, fy) in enumerate(zip(self.features(x), self.features(y), strict=True))
        ]

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.stack(self.layer_distances(x, y)).sum(dim=0)


class ScalingLayer(nn.Module):
    """From [-1, 1] to the range that VGG16 was trained on."""

    shift: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        return (pixels - self.shift) / self.scale


class VGG16Features(nn.Module):
    """VGG16's convolutions in five slices; inside them the layers keep torchvision's numbers."""

    def __init__(self) -> None:
        super().__init__()
        layers = _vgg16_layers()
        for k, (start, stop) in enumerate(_SLICES, start=1):
            part = nn.Sequential()
            for index in range(start, stop):
                part.add_module(str(index), layers[index])
            self.add_module(f"slice{k}", part)

    def forward(self, x: Tensor) -> list[Tensor]:
        features = []
        for part in self.children():
            x = part(x)
            features.append(x)
        return features


def _vgg16_layers() -> list[nn.Module]:
    layers: list[nn.Module] = []
    channels = 3
    for width in _WIDTHS:
        if isinstance(width, int):
            layers += [nn.Conv2d(channels, width, kernel_size=3, padding=1), nn.ReLU(inplace=False)]
            channels = width
        else:
            layers.append(nn.MaxPool2d(kernel_size=2, stride=2))
    return layers


class LinearHead(nn.Module):
    """Weighs the channels of one slice: (B, channels, h, w) -> (B, 1, h, w)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        # The heads were trained after a dropout layer, which is why the convolution is number 1.
        self.model = nn.Sequential(nn.Identity(), nn.Conv2d(channels, 1, kernel_size=1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


def unit(features: Tensor) -> Tensor:
    """Scale the channel vector at every position to length 1.

    The clamp changes no value: it keeps the gradient finite (zero) where all channels are zero.
    """
    squares = features.square().sum(dim=1, keepdim=True)
    return features / (squares.clamp_min(1e-20).sqrt() + 1e-10)


def _backbone_weights(vgg16: Mapping[str, Tensor]) -> StateDict:
    """torchvision's `features.<index>.*` under our names; the classifier is not needed."""
    slice_of = {index: k for k, (start, stop) in enumerate(_SLICES, start=1) for index in range(start, stop)}
    weights = {}
    for key, value in vgg16.items():
        if key.startswith("features."):
            _, index, name = key.split(".")
            weights[f"net.slice{slice_of[int(index)]}.{index}.{name}"] = value
    return weights


def _head_weights(heads: Mapping[str, Tensor]) -> StateDict:
    """The heads as their authors name them, `lin<k>.model.1.weight`; other keys are not needed."""
    return {key: value for key, value in heads.items() if key.startswith("lin")}
