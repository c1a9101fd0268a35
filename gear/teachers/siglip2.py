"""SigLIP 2 (arXiv:2502.14786), the vision towers of fixed resolution, without their pooling head."""

from __future__ import annotations

from torch import nn

from gear.keytable import Dropped, KeyTable
from gear.teachers.preprocess import InputRule
from gear.teachers.vit import Layout, Variant, ViTFamily, timm_vit

_LAYER = "vision_model.encoder.layers.*"
_TEXT = Dropped("text tower")

_HUB = Layout(
    marker="vision_model.post_layernorm.weight",
    keys=KeyTable(
        {
            "text_model.*": _TEXT,
            "logit_scale": _TEXT,
            "logit_bias": _TEXT,
            "vision_model.head.*": Dropped("attention pooling"),
            "vision_model.embeddings.position_ids": Dropped("constants, which follow from the size"),
            "vision_model.embeddings.patch_embedding.*": "patch_embed.proj.*",
            "vision_model.embeddings.position_embedding.weight": "pos_embed",
            tuple(f"{_LAYER}.self_attn.{name}_proj.*" for name in "qkv"): "blocks.*.attn.qkv.*",
            f"{_LAYER}.self_attn.out_proj.*": "blocks.*.attn.proj.*",
            f"{_LAYER}.layer_norm1.*": "blocks.*.norm1.*",
            f"{_LAYER}.layer_norm2.*": "blocks.*.norm2.*",
            f"{_LAYER}.mlp.*": "blocks.*.mlp.*",
            "vision_model.post_layernorm.*": "norm.*",
        }
    ),
)
"""model.safetensors of the hub's google/siglip2-*-patch16-*, which holds both towers."""


def _build(variant: Variant, side: int) -> nn.Module:
    # The published configurations use the tanh form of GELU; timm's smaller sizes use the exact one.
    return timm_vit(variant, side, global_pool="", act_layer="gelu_tanh")


def _variant(dim: int, word: str) -> Variant:
    weights = f"hf://google/siglip2-{word}-patch16-{{image_size}}/model.safetensors"
    return Variant(dim=dim, model=f"vit_{word}_patch16_siglip_256", weights=weights)


SIGLIP2 = ViTFamily(
    name="siglip2",
    input=InputRule(normalisation=((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)), image_sizes=(256, 512)),
    variants={"b": _variant(768, "base"), "l": _variant(1024, "large"), "so400m": _variant(1152, "so400m")},
    network=_build,
    layouts=(_HUB,),
)
