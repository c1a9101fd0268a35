"""DINOv2 as the feature network of FD-DINOv2, in timm's implementation: uint8 images in, class tokens out.

The official evaluator loads `dinov2_vitl14` through torch.hub, which fetches code and weights while it runs. Here the
weights are a file, Meta's own `dinov2_vitl14_pretrain.pth`, and its keys are timm's keys. The two
implementations resample positions to the grid of the input differently, so that is done here (`position_table`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from harness.contract.errors import MissingAsset
from harness.contract.samples import num_threads

Array = npt.NDArray[Any]

INPUT_SIZE = 224
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HEAD_DIM = 64
"""In every DINOv2 network."""
GRID_OFFSET = 0.1
"""Added to the grid's side when DINOv2 resamples its positions; a guard against rounding, now part of the method."""


class DINOv2Features:
    """(n, H, W, 3) uint8 -> (n, D) float32 class tokens, D = 1024 for ViT-L/14. Runs on the GPU where there is one."""

    def __init__(self, path: Path) -> None:
        """Load a DINOv2 checkpoint without registers: `dinov2_vits14`, `vitb14`, `vitl14`.

        Raises MissingAsset when the file is not such a checkpoint.
        """
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        torch.backends.cudnn.allow_tf32 = False  # its default rounds the patch embedding to 10 bits
        self.network = build_network(read_weights(path), source=str(path)).to(self.device)
        self._pool = ThreadPoolExecutor(num_threads())

    @torch.inference_mode()
    def __call__(self, images_u8: Array) -> Array:
        batch = torch.from_numpy(np.stack(list(self._pool.map(transform, images_u8))))
        features: Array = self.network(batch.to(self.device)).float().cpu().numpy()
        return features


def transform(image_u8: Array) -> Array:
    """(H, W, 3) uint8 -> (3, 224, 224) float32: Pillow's bicubic, aspect not kept, then ImageNet's mean and spread."""
    resized = Image.fromarray(image_u8).resize((INPUT_SIZE, INPUT_SIZE), Image.Resampling.BICUBIC)
    scaled = np.asarray(resized, dtype=np.float32) / np.float32(255.0)
    normalised = (scaled - np.asarray(MEAN, np.float32)) / np.asarray(STD, np.float32)
    return np.ascontiguousarray(normalised.transpose(2, 0, 1))


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint; nothing else in it is unpickled."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen kinds of errors for a wrong file
        raise MissingAsset(
            f"{path}: cannot be read as PyTorch weights ({type(error).__name__}); fetch it again: "
            "harness assets pull dinov2-vitl14"
        ) from error
    return dict(state)


def build_network(weights: Mapping[str, Tensor], *, source: str) -> VisionTransformer:
    """The network that a checkpoint's shapes describe, loaded strictly, in evaluation mode, for 224 px input."""
    try:
        width, _, patch, _ = weights["patch_embed.proj.weight"].shape
        depth = 1 + max(int(found[1]) for key in weights if (found := re.match(r"blocks\.(\d+)\.", key)))
        network = VisionTransformer(
            img_size=INPUT_SIZE,
            patch_size=patch,
            embed_dim=width,
            depth=depth,
            num_heads=width // HEAD_DIM,
            init_values=1.0,  # layer scale; its values come with the weights
            num_classes=0,
        )
        own = {key: tensor.float() for key, tensor in weights.items() if key != "mask_token"}
        own["pos_embed"] = position_table(own["pos_embed"], INPUT_SIZE // patch)
        network.load_state_dict(own)
    except (KeyError, ValueError, RuntimeError) as error:
        raise MissingAsset(
            f"{source}: is not a DINOv2 network without registers ({str(error)[:200]}); fetch it again: "
            "harness assets pull dinov2-vitl14"
        ) from error
    return network.eval().requires_grad_(False)


def position_table(table: Tensor, grid: int) -> Tensor:
    """(1, 1 + M M, D) -> (1, 1 + grid grid, D), bicubic without antialiasing, with DINOv2's offset of the scale."""
    side = math.isqrt(table.shape[1] - 1)
    if side == grid:
        return table
    cls, patches = table[:, :1], table[:, 1:]
    image = patches.reshape(1, side, side, -1).permute(0, 3, 1, 2)
    scale = (grid + GRID_OFFSET) / side
    resampled = F.interpolate(image, scale_factor=(scale, scale), mode="bicubic", align_corners=False)
    return torch.cat([cls, resampled.permute(0, 2, 3, 1).reshape(1, grid * grid, -1)], dim=1)
