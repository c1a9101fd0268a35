"""V-JEPA 2.1, reading single images.

Differences from V-JEPA 2 (arXiv:2506.09985), which the transformers library has: images have their own patch embedding
and an embedding that marks their modality; rotary channel pairs are neighbours; row and column numbers are stretched so
that any grid spans the 16 positions of training; the final norm is the last of four, since training read the features
at four depths. Written from the authors' description in code; no published weights could be tried.

Shapes: B images of g x g patches, L = g^2, h width of a head.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gear.keytable import Dropped, KeyTable
from gear.teachers.preprocess import IMAGENET, InputRule
from gear.teachers.vit import Layout, Variant, ViTFamily

_PATCH = 16
_TRAINED_GRID = 16
_BASE = 10_000.0
_EPS = 1e-6


class Encoder(nn.Module):
    """Images (B, 3, 16 g, 16 g) -> patches (B, L, dim) after the final norm."""

    def __init__(self, *, dim: int, depth: int, num_heads: int, ffn_dim: int, grid: int) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(3, dim, kernel_size=_PATCH, stride=_PATCH)
        self.modality_embed = nn.Parameter(torch.zeros(1, 1, dim))
        self.blocks = nn.ModuleList(Block(dim, num_heads, ffn_dim) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=_EPS)
        self.register_buffer("rotation", rotary_table(grid, dim // num_heads), persistent=False)

    def forward_features(self, pixels: Tensor) -> Tensor:
        hidden = self.patch_embed(pixels).flatten(2).transpose(1, 2) + self.modality_embed
        for block in self.blocks:
            hidden = block(hidden, self.rotation)
        return self.norm(hidden)


class Block(nn.Module):
    """A pre-norm transformer block with rotary attention."""

    def __init__(self, dim: int, num_heads: int, ffn_dim: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=_EPS)
        self.attn = Attention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim, eps=_EPS)
        self.mlp = FeedForward(dim, ffn_dim)

    def forward(self, hidden: Tensor, rotation: Tensor) -> Tensor:
        hidden = hidden + self.attn(self.norm1(hidden), rotation)
        return hidden + self.mlp(self.norm2(hidden))


class Attention(nn.Module):
    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, hidden: Tensor, rotation: Tensor) -> Tensor:
        q, k, v = self.qkv(hidden).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)  # (B, heads, L, h)
        q, k = rotate(q, rotation).to(v.dtype), rotate(k, rotation).to(v.dtype)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    def __init__(self, dim: int, ffn_dim: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, ffn_dim), nn.Linear(ffn_dim, dim)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(hidden)))


def rotary_table(grid: int, head_dim: int) -> Tensor:
    """Cosine and sine per patch and channel, (2, L, h) float32.

    A third of the channels each, rounded down to pairs, rotates with the frame (0 in an image), the row and the column;
    the remaining channels do not rotate.
    """
    third = 2 * (head_dim // 6)
    frequencies = _BASE ** (-torch.arange(third // 2) / (third / 2))
    side = torch.arange(grid) * ((_TRAINED_GRID - 1) / max(grid - 1, 1))
    rows, columns = side.repeat_interleave(grid), side.repeat(grid)
    angles = torch.zeros(grid * grid, head_dim)
    for start, positions in ((third, rows), (2 * third, columns)):
        angles[:, start : start + third] = (positions[:, None] * frequencies).repeat_interleave(2, dim=-1)
    return torch.stack([angles.cos(), angles.sin()])


def rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Rotate neighbouring pairs of channels of x (B, heads, L, h) by the angles of `rotary_table`, in float32."""
    cos, sin = rotation
    first, second = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    turned = torch.stack([-second, first], dim=-1).flatten(-2)
    return x.float() * cos + turned * sin


_VIDEO = Dropped("reads videos")
_AUTHORS = Layout(
    marker="patch_embed_img.proj.weight",
    keys=KeyTable(
        {
            "patch_embed_img.proj.*": "patch_embed.*",
            "patch_embed.proj.*": _VIDEO,
            "img_mod_embed": "modality_embed",
            "video_mod_embed": _VIDEO,
            "norms_block.3.*": "norm.*",
            "norms_block.*": Dropped("norm of a shallower depth, for training"),
        }
    ),
)
"""One encoder of the files of facebookresearch/vjepa2; all other keys are the same as ours."""

_SIZES = {
    "b": (768, 12, 12, 3072, "vitb_dist_vitG"),
    "l": (1024, 24, 16, 4096, "vitl_dist_vitG"),
    "g": (1408, 40, 22, 6144, "vitg"),
    "G": (1664, 48, 26, 8192, "vitG"),
}
"""Width, blocks, heads, hidden width of the feed-forward, and the file's middle name."""


def _build(variant: Variant, side: int) -> nn.Module:
    return Encoder(**variant.changes, grid=side // _PATCH)


JEPA21 = ViTFamily(
    name="jepa21",
    input=InputRule(normalisation=IMAGENET, image_sizes=(256, 512, 1024)),
    variants={
        size: Variant(
            dim=dim,
            weights=f"https://dl.fbaipublicfiles.com/vjepa2/vjepa2_1_{file}_384.pt",
            changes={"dim": dim, "depth": depth, "num_heads": num_heads, "ffn_dim": ffn_dim},
        )
        for size, (dim, depth, num_heads, ffn_dim, file) in _SIZES.items()
    },
    network=_build,
    layouts=(_AUTHORS,),
    parts=("ema_encoder", "target_encoder"),
    prefixes=("module.", "backbone."),
)
