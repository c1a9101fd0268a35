"""DINOv3 (arXiv:2508.10104), the vision transformers trained on LVD-1689M. Access to the weights is gated."""

from __future__ import annotations

from typing import Any

from gear.keytable import Dropped, KeyTable
from gear.teachers.preprocess import IMAGENET, InputRule
from gear.teachers.vit import Layout, Variant, ViTFamily, timm_vit

_NO_KEY_BIAS = Dropped("keys have no bias: it is masked to zero")
_AUTHORS = Layout(
    marker="storage_tokens",
    keys=KeyTable(
        {
            "mask_token": Dropped("replaces masked patches in training"),
            "local_cls_norm.*": Dropped("norm of local crops in training"),
            "rope_embed.periods": Dropped("constants, which follow from the size"),
            "storage_tokens": "reg_token",
            "blocks.*.attn.qkv.bias_mask": _NO_KEY_BIAS,
            "blocks.*.attn.qkv.bias": ("blocks.*.attn.q_bias", _NO_KEY_BIAS, "blocks.*.attn.v_bias"),
            "blocks.*.ls1.gamma": "blocks.*.gamma_1",
            "blocks.*.ls2.gamma": "blocks.*.gamma_2",
            "blocks.*.mlp.w1.*": "blocks.*.mlp.fc1_g.*",  # SwiGLU: gate, value, output
            "blocks.*.mlp.w2.*": "blocks.*.mlp.fc1_x.*",
            "blocks.*.mlp.w3.*": "blocks.*.mlp.fc2.*",
        }
    ),
)
"""Files of facebookresearch/dinov3; all other keys are the same as timm's."""


def _hub_layout(gated: bool) -> Layout:
    """model.safetensors of the hub's facebook/dinov3-*; `up_proj` is the first layer of an MLP, or SwiGLU's value."""
    first = "blocks.*.mlp.fc1_x.*" if gated else "blocks.*.mlp.fc1.*"
    marker = "layer.0.mlp.gate_proj.weight" if gated else "embeddings.register_tokens"
    qkv = tuple(f"layer.*.attention.{name}_proj.weight" for name in "qkv")
    keys = KeyTable(
        {
            "embeddings.mask_token": Dropped("replaces masked patches in training"),
            "embeddings.cls_token": "cls_token",
            "embeddings.register_tokens": "reg_token",
            "embeddings.patch_embeddings.*": "patch_embed.proj.*",
            qkv: "blocks.*.attn.qkv.weight",
            "layer.*.attention.q_proj.bias": "blocks.*.attn.q_bias",
            "layer.*.attention.v_proj.bias": "blocks.*.attn.v_bias",
            "layer.*.attention.o_proj.*": "blocks.*.attn.proj.*",
            "layer.*.layer_scale1.lambda1": "blocks.*.gamma_1",
            "layer.*.layer_scale2.lambda1": "blocks.*.gamma_2",
            "layer.*.norm1.*": "blocks.*.norm1.*",
            "layer.*.norm2.*": "blocks.*.norm2.*",
            "layer.*.mlp.gate_proj.*": "blocks.*.mlp.fc1_g.*",
            "layer.*.mlp.up_proj.*": first,
            "layer.*.mlp.down_proj.*": "blocks.*.mlp.fc2.*",
        }
    )
    return Layout(marker=marker, keys=keys)


def _variant(dim: int, model: str, hub: str | None, **changes: Any) -> Variant:
    weights = f"hf://facebook/dinov3-{hub}-pretrain-lvd1689m/model.safetensors" if hub else None
    return Variant(dim=dim, model=model, weights=weights, changes=changes)


_HUGE_PLUS = "vit_huge_plus_patch16_dinov3_qkvb"

DINOV3 = ViTFamily(
    name="dinov3",
    input=InputRule(normalisation=IMAGENET, image_sizes=(256, 512, 1024), num_special=5),
    variants={
        "s": _variant(384, "vit_small_patch16_dinov3_qkvb", "vits16"),
        "splus": _variant(384, "vit_small_plus_patch16_dinov3_qkvb", "vits16plus"),
        "b": _variant(768, "vit_base_patch16_dinov3_qkvb", "vitb16"),
        "l": _variant(1024, "vit_large_patch16_dinov3_qkvb", "vitl16"),
        # timm has no large plus: it is the huge plus with the large one's width, depth and heads.
        "lplus": _variant(1024, _HUGE_PLUS, None, embed_dim=1024, depth=24, num_heads=16),
        "hplus": _variant(1280, _HUGE_PLUS, "vith16plus"),
        "7b": _variant(4096, "vit_7b_patch16_dinov3", None),  # on the hub in several files: name their folder
    },
    network=timm_vit,
    layouts=(_AUTHORS, _hub_layout(gated=True), _hub_layout(gated=False)),
)
