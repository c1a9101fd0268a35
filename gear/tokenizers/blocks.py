"""The convolutional blocks of VQGAN, shared by the VQ and IBQ backbones.

All maps are (B, channels, height, width). Attribute names and their order are the keys of the public checkpoints;
where a block lacks a part, an `nn.Identity`, which has no keys, takes its place.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gear.tokenizers.fused import norm_silu_conv


def group_norm(channels: int, *, affine: bool = True) -> nn.GroupNorm:
    """32 groups, eps 1e-6: the normalisation of every tokenizer here."""
    return nn.GroupNorm(32, channels, eps=1e-6, affine=affine)


def conv3x3(in_channels: int, out_channels: int, *, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=bias)


class Conv1x1(nn.Conv2d):
    """A 1x1 convolution: (B, in, height, width) -> (B, out, height, width).

    On a CPU without gradients it is computed as one matrix product per image, which is as fast: oneDNN's kernel sums
    the channels in an order that depends on the number of threads, and pixels could then differ by one level.
    """

    def __init__(self, in_channels: int, out_channels: int, *, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, kernel_size=1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu" or torch.is_grad_enabled():
            return super().forward(x)
        weight, pixels = self.weight.flatten(1).expand(len(x), -1, -1), x.flatten(2)
        if self.bias is None:
            product = torch.bmm(weight, pixels)
        else:
            product = torch.baddbmm(self.bias[:, None], weight, pixels)
        return product.unflatten(2, x.shape[2:])


class ResBlock(nn.Module):
    """Two 3x3 convolutions, each after norm and SiLU, added to a shortcut of the raw input."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm1 = group_norm(in_channels)
        self.conv1 = conv3x3(in_channels, out_channels)
        self.norm2 = group_norm(out_channels)
        self.conv2 = conv3x3(out_channels, out_channels)
        self.nin_shortcut = Conv1x1(in_channels, out_channels) if in_channels != out_channels else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = norm_silu_conv(x, self.norm1, self.conv1)
        h = norm_silu_conv(h, self.norm2, self.conv2)
        return self.nin_shortcut(x) + h


class AttnBlock(nn.Module):
    """Single-head self-attention over all positions, added to its input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = group_norm(channels)
        self.q = Conv1x1(channels, channels)
        self.k = Conv1x1(channels, channels)
        self.v = Conv1x1(channels, channels)
        self.proj_out = Conv1x1(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        q, k, v = (conv(h).flatten(2).transpose(1, 2)[:, None] for conv in (self.q, self.k, self.v))
        mixed = _attend(q, k, v)  # (B, 1 head, positions, channels)
        return x + self.proj_out(mixed[:, 0].transpose(1, 2).reshape(x.shape))


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention over positions, (B, 1 head, positions, channels): fused on a GPU, where its weights are never stored.

    On a CPU it is written out, which is as fast at these sizes: the rounding of PyTorch's fused kernel depends on the
    number of threads, enough to change a token that lies between two codes, and with it the first steps of training.
    """
    if q.is_cuda:
        return F.scaled_dot_product_attention(q, k, v)
    return torch.softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5, dim=-1) @ v


class Downsample(nn.Module):
    """Halve the map; the padding is on the right and at the bottom only."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, kernel_size=3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Double the map by repeating pixels, then smooth it with a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = conv3x3(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Level(nn.Module):
    """Residual blocks at one resolution, each followed by attention where there is any; then a change of resolution.

    `blocks_key` is the name of the list of residual blocks in the family's checkpoints.
    """

    def __init__(
        self,
        blocks_key: str,
        in_channels: int,
        out_channels: int,
        *,
        num_blocks: int,
        attention: bool,
        downsample: bool = False,
        upsample: bool = False,
    ) -> None:
        super().__init__()
        widths = [in_channels] + [out_channels] * num_blocks
        self.blocks_key = blocks_key
        self.add_module(blocks_key, nn.ModuleList(ResBlock(before, after) for before, after in pairwise(widths)))
        self.attn = nn.ModuleList(AttnBlock(out_channels) if attention else nn.Identity() for _ in range(num_blocks))
        self.downsample = Downsample(out_channels) if downsample else nn.Identity()
        self.upsample = Upsample(out_channels) if upsample else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        for block, attention in zip(self.get_submodule(self.blocks_key).children(), self.attn, strict=True):
            x = attention(block(x))
        return self.upsample(self.downsample(x))
