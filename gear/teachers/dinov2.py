"""DINOv2 (arXiv:2304.07193), without and with registers (arXiv:2309.16588)."""

from __future__ import annotations

import math

from torch import nn

from gear.foreign import StateDict
from gear.keytable import Dropped, KeyTable
from gear.teachers.layers import resample_position_table
from gear.teachers.preprocess import IMAGENET, InputRule, patches_of_14
from gear.teachers.vit import Layout, Variant, ViTFamily, timm_vit

_DIMS = {"s": ("small", 384), "b": ("base", 768), "l": ("large", 1024), "g": ("giant", 1536)}
_URL = "https://dl.fbaipublicfiles.com/dinov2/dinov2_vit{size}14/dinov2_vit{size}14{suffix}_pretrain.pth"

_QKV = ("query", "key", "value")

_AUTHORS = Layout(
    marker="mask_token",
    keys=KeyTable(
        {
            "mask_token": Dropped("replaces masked patches in training"),
            "register_tokens": "reg_token",
            "blocks.*.mlp.w12.*": "blocks.*.mlp.fc1.*",  # SwiGLU of size g
            "blocks.*.mlp.w3.*": "blocks.*.mlp.fc2.*",
        }
    ),
)
"""Files of facebookresearch/dinov2; all other keys are the same as timm's."""

_LAYER = "encoder.layer.*"
_HUB = Layout(
    marker="embeddings.position_embeddings",
    keys=KeyTable(
        {
            "embeddings.mask_token": Dropped("replaces masked patches in training"),
            "embeddings.cls_token": "cls_token",
            "embeddings.register_tokens": "reg_token",
            "embeddings.position_embeddings": "pos_embed",
            "embeddings.patch_embeddings.projection.*": "patch_embed.proj.*",
            tuple(f"{_LAYER}.attention.attention.{name}.*" for name in _QKV): "blocks.*.attn.qkv.*",
            f"{_LAYER}.attention.output.dense.*": "blocks.*.attn.proj.*",
            f"{_LAYER}.layer_scale1.lambda1": "blocks.*.ls1.gamma",
            f"{_LAYER}.layer_scale2.lambda1": "blocks.*.ls2.gamma",
            f"{_LAYER}.mlp.weights_in.*": "blocks.*.mlp.fc1.*",  # SwiGLU of size g
            f"{_LAYER}.mlp.weights_out.*": "blocks.*.mlp.fc2.*",
            f"{_LAYER}.*": "blocks.*.*",  # norm1, norm2, mlp.fc1, mlp.fc2
            "layernorm.*": "norm.*",
        }
    ),
)
"""model.safetensors of the hub's facebook/dinov2-*."""


def _fit(weights: StateDict, network: nn.Module) -> StateDict:
    """The published table of 37 x 37 positions, resampled for the network's grid.

    timm's network with registers has no row for the class token, so that row moves into the class token itself.
    """
    table = weights.get("pos_embed")
    if table is None:
        return weights
    num_patches = network.patch_embed.num_patches  # type: ignore[union-attr]
    class_row = 1 if math.isqrt(table.shape[1]) ** 2 != table.shape[1] else 0
    resampled = resample_position_table(table, math.isqrt(num_patches), num_special=class_row)  # type: ignore[arg-type]
    if len(network.get_parameter("pos_embed")[0]) == resampled.shape[1]:
        return {**weights, "pos_embed": resampled}
    return {**weights, "pos_embed": resampled[:, 1:], "cls_token": weights["cls_token"] + resampled[:, :1]}


def _family(name: str, registers: str, suffix: str, num_special: int) -> ViTFamily:
    return ViTFamily(
        name=name,
        input=InputRule(
            normalisation=IMAGENET,
            side=patches_of_14,
            image_sizes=(256, 384, 512, 1024),
            num_special=num_special,
            patch=14,
        ),
        variants={
            size: Variant(
                dim=dim,
                weights=_URL.format(size=size, suffix=suffix),
                model=f"vit_{word}_patch14{registers}_dinov2",
            )
            for size, (word, dim) in _DIMS.items()
        },
        network=timm_vit,
        layouts=(_AUTHORS, _HUB),
        fit=_fit,
    )


DINOV2 = _family("dinov2", "", "", 1)
DINOV2_REG = _family("dinov2_reg", "_reg4", "_reg4", 5)
