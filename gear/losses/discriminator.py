"""The PatchGAN discriminator of pix2pix (arXiv:1611.07004), as used to train VQGAN tokenizers."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from gear.numerics import in_layout

Norm = Literal["batch", "group"]


class PatchDiscriminator(nn.Module):
    """pixels (B, 3, H, W) -> logits (B, 1, h, w), one per overlapping patch; large means real.

    With 3 layers a 256 px image gives 30 x 30 logits. Batch normalisation uses batch statistics throughout training,
    also in the generator's pass.
    """

    def __init__(self, *, ndf: int = 64, n_layers: int = 3, norm: Norm = "batch") -> None:
        super().__init__()
        if ndf < 1 or n_layers < 1:
            raise ValueError(f"ndf and n_layers must be positive, got {ndf} and {n_layers}")
        widths = [ndf * min(2**n, 8) for n in range(n_layers + 1)]
        layers: list[nn.Module] = [_conv(3, ndf, stride=2), _leaky_relu()]
        for n, (before, after) in enumerate(pairwise(widths), start=1):
            stride = 2 if n < n_layers else 1
            layers += [_conv(before, after, stride=stride, bias=False), _norm(norm, after), _leaky_relu()]
        layers.append(_conv(widths[-1], 1, stride=1))
        self.main = nn.Sequential(*layers)
        self.layout: torch.memory_format | None = None
        """Memory layout of all maps; None = channels last on a GPU, rows on a CPU."""
        self.apply(_initialise)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.main(in_layout(pixels, self.layout))


def _conv(in_channels: int, out_channels: int, *, stride: int, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, kernel_size=4, stride=stride, padding=1, bias=bias)


def _leaky_relu() -> nn.LeakyReLU:
    # In place: the norm before it keeps its input, not its output, for the backward pass.
    return nn.LeakyReLU(0.2, inplace=True)


def _norm(kind: Norm, channels: int) -> nn.Module:
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    if kind == "group":
        return nn.GroupNorm(min(32, channels), channels)
    raise ValueError(f"norm must be batch or group, got {kind!r}")


def _initialise(module: nn.Module) -> None:
    """Weights of pix2pix; biases of convolutions keep PyTorch's default."""
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)
