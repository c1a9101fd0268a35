"""The convolutional backbone of LFQ and GLFQ, after Open-MAGVIT2 (arXiv:2409.04410).

Unlike the VQGAN blocks: residual convolutions without bias, strided convolutions with symmetric padding,
depth-to-space upsampling, no attention, and a decoder whose features are scaled by statistics of the code map.
All maps are (B, channels, height, width); attribute names and their order are the keys of the public checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor, nn

from gear.tokenizers.blocks import Conv1x1, conv3x3, group_norm
from gear.tokenizers.fused import norm_silu_conv

_STATISTICS_EPS = 1e-6


@dataclass(frozen=True, kw_only=True)
class BackboneShape:
    """Sizes of encoder and decoder, which mirror each other."""

    ch: int
    ch_mult: Sequence[int]
    """Width of each level in units of ch, highest resolution first."""
    num_res_blocks: int
    """Per level and in the middle."""
    code_dim: int
    num_halvings: int
    """Levels that change the resolution: the first ones of the encoder, 1 .. num_halvings of the decoder."""

    @property
    def widths(self) -> list[int]:
        return [self.ch * m for m in self.ch_mult]


class PlainResBlock(nn.Module):
    """Norm, SiLU, 3x3 convolution, twice, added to a shortcut of the raw input; no convolution has a bias."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm1 = group_norm(in_channels)
        self.norm2 = group_norm(out_channels)
        self.conv1 = conv3x3(in_channels, out_channels, bias=False)
        self.conv2 = conv3x3(out_channels, out_channels, bias=False)
        changes = in_channels != out_channels
        self.nin_shortcut = Conv1x1(in_channels, out_channels, bias=False) if changes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = norm_silu_conv(x, self.norm1, self.conv1)
        h = norm_silu_conv(h, self.norm2, self.conv2)
        return self.nin_shortcut(x) + h


class DepthToSpace(nn.Module):
    """Double the map: a convolution to four times the channels, which become the four pixels of each position.

    The channel order is (dy, dx, channel), not PixelShuffle's (channel, dy, dx).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(channels, 4 * channels)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        h = self.conv1(x).reshape(batch, 2, 2, channels, height, width)
        return h.permute(0, 3, 4, 1, 5, 2).reshape(batch, channels, 2 * height, 2 * width)


class AdaptiveGroupNorm(nn.Module):
    """Group norm whose scale and shift are linear in the code map's standard deviation and mean, per image."""

    def __init__(self, code_dim: int, channels: int) -> None:
        super().__init__()
        self.norm = group_norm(channels, affine=False)
        self.gamma = nn.Linear(code_dim, channels)
        self.beta = nn.Linear(code_dim, channels)

    def forward(self, x: Tensor, code_map: Tensor) -> Tensor:
        positions = code_map.flatten(2)  # (B, code_dim, h*w)
        # The unbiased variance, as in the original code.
        gamma = self.gamma((positions.var(dim=2) + _STATISTICS_EPS).sqrt())
        beta = self.beta(positions.mean(dim=2))
        return self.norm(x) * gamma[:, :, None, None] + beta[:, :, None, None]


def stack(in_channels: int, out_channels: int, num_blocks: int) -> nn.Sequential:
    """`num_blocks` residual blocks; the first one changes the width."""
    widths = [in_channels] + [out_channels] * num_blocks
    return nn.Sequential(*(PlainResBlock(before, after) for before, after in pairwise(widths)))


class EncoderLevel(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, *, num_blocks: int, downsample: bool) -> None:
        super().__init__()
        self.block = stack(in_channels, out_channels, num_blocks)
        strided = nn.Conv2d(out_channels, out_channels, kernel_size=3, stride=2, padding=1)
        self.downsample = strided if downsample else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.downsample(self.block(x))


class DecoderLevel(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, *, num_blocks: int, upsample: bool) -> None:
        super().__init__()
        self.block = stack(in_channels, out_channels, num_blocks)
        self.upsample = DepthToSpace(out_channels) if upsample else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.upsample(self.block(x))


class Encoder(nn.Module):
    """pixels (B, 3, H, W) -> (B, code_dim, h, w)."""

    def __init__(self, shape: BackboneShape) -> None:
        super().__init__()
        widths, num_blocks = shape.widths, shape.num_res_blocks
        self.conv_in = conv3x3(3, shape.ch, bias=False)
        self.down = nn.Sequential(
            *(
                EncoderLevel(before, after, num_blocks=num_blocks, downsample=level < shape.num_halvings)
                for level, (before, after) in enumerate(pairwise([shape.ch, *widths]))
            )
        )
        self.mid_block = stack(widths[-1], widths[-1], num_blocks)
        self.norm_out = group_norm(widths[-1])
        self.conv_out = Conv1x1(widths[-1], shape.code_dim)

    def forward(self, pixels: Tensor) -> Tensor:
        h = self.mid_block(self.down(self.conv_in(pixels)))
        return norm_silu_conv(h, self.norm_out, self.conv_out)


class Decoder(nn.Module):
    """Code map (B, code_dim, h, w) -> pixels (B, 3, H, W).

    `up` and `adaptive` are numbered by level, 0 the highest resolution, and run from the last to the first.
    """

    def __init__(self, shape: BackboneShape) -> None:
        super().__init__()
        widths, num_blocks = shape.widths, shape.num_res_blocks
        entering = [*widths[1:], widths[-1]]  # the width in which level i receives its features
        self.conv_in = conv3x3(shape.code_dim, widths[-1])
        self.mid_block = stack(widths[-1], widths[-1], num_blocks)
        self.up = nn.ModuleList(
            DecoderLevel(before, after, num_blocks=num_blocks, upsample=0 < level <= shape.num_halvings)
            for level, (before, after) in enumerate(zip(entering, widths, strict=True))
        )
        self.adaptive = nn.ModuleList(AdaptiveGroupNorm(shape.code_dim, width) for width in entering)
        self.norm_out = group_norm(widths[0])
        self.conv_out = conv3x3(widths[0], 3)

    def forward(self, code_map: Tensor) -> Tensor:
        if code_map.shape[2] * code_map.shape[3] < 2:  # a single value has no variance
            raise ValueError("the LFQ decoder needs a code map of at least two positions; use a larger image")
        h = self.mid_block(self.conv_in(code_map))
        for level in reversed(range(len(self.up))):
            h = self.up[level](self.adaptive[level](h, code_map))
        return norm_silu_conv(h, self.norm_out, self.conv_out)
