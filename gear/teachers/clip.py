"""CLIP ViT-L/14 (arXiv:2103.00020): the image tower up to its last block, before the final norm and projection."""

from __future__ import annotations

from torch import nn

from gear.keytable import Dropped, KeyTable
from gear.teachers.preprocess import InputRule
from gear.teachers.vit import Layout, Variant, ViTFamily, timm_vit

_BLOCK = "visual.transformer.resblocks.*"
_LAYER = "vision_model.encoder.layers.*"
_TEXT = Dropped("text tower")
_AFTER_LAST_BLOCK = Dropped("after the last block")
_CONSTANT = Dropped("constants, which follow from the size")

_OPENAI = Layout(
    marker="visual.class_embedding",
    keys=KeyTable(
        {
            "visual.class_embedding": "cls_token",
            "visual.positional_embedding": "pos_embed",
            "visual.conv1.weight": "patch_embed.proj.weight",
            "visual.ln_pre.*": "norm_pre.*",
            f"{_BLOCK}.attn.in_proj_weight": "blocks.*.attn.qkv.weight",
            f"{_BLOCK}.attn.in_proj_bias": "blocks.*.attn.qkv.bias",
            f"{_BLOCK}.attn.out_proj.*": "blocks.*.attn.proj.*",
            f"{_BLOCK}.ln_1.*": "blocks.*.norm1.*",
            f"{_BLOCK}.ln_2.*": "blocks.*.norm2.*",
            f"{_BLOCK}.mlp.c_fc.*": "blocks.*.mlp.fc1.*",
            f"{_BLOCK}.mlp.c_proj.*": "blocks.*.mlp.fc2.*",
            "visual.ln_post.*": _AFTER_LAST_BLOCK,
            "visual.proj": _AFTER_LAST_BLOCK,
            "transformer.*": _TEXT,
            "token_embedding.weight": _TEXT,
            "positional_embedding": _TEXT,
            "ln_final.*": _TEXT,
            "text_projection": _TEXT,
            "logit_scale": _TEXT,
            "input_resolution": _CONSTANT,
            "context_length": _CONSTANT,
            "vocab_size": _CONSTANT,
        }
    ),
)
"""The state dict of OpenAI's model."""

_HUB = Layout(
    marker="vision_model.pre_layrnorm.weight",  # the misspelling is in the file
    keys=KeyTable(
        {
            "text_model.*": _TEXT,
            "logit_scale": _TEXT,
            "text_projection.weight": _TEXT,
            "visual_projection.weight": _AFTER_LAST_BLOCK,
            "vision_model.post_layernorm.*": _AFTER_LAST_BLOCK,
            "vision_model.embeddings.position_ids": _CONSTANT,
            "vision_model.embeddings.class_embedding": "cls_token",
            "vision_model.embeddings.patch_embedding.weight": "patch_embed.proj.weight",
            "vision_model.embeddings.position_embedding.weight": "pos_embed",
            "vision_model.pre_layrnorm.*": "norm_pre.*",
            tuple(f"{_LAYER}.self_attn.{name}_proj.*" for name in "qkv"): "blocks.*.attn.qkv.*",
            f"{_LAYER}.self_attn.out_proj.*": "blocks.*.attn.proj.*",
            f"{_LAYER}.layer_norm1.*": "blocks.*.norm1.*",
            f"{_LAYER}.layer_norm2.*": "blocks.*.norm2.*",
            f"{_LAYER}.mlp.*": "blocks.*.mlp.*",
        }
    ),
)
"""model.safetensors of the hub's openai/clip-vit-large-patch14, which holds both towers."""


def _build(variant: Variant, side: int) -> nn.Module:
    return timm_vit(variant, side, final_norm=False)


CLIP = ViTFamily(
    name="clip",
    input=InputRule(
        normalisation=((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
        side=lambda image_size: 224 * (image_size // 256),
        image_sizes=(256,),
        resize_first=True,
        num_special=1,
        patch=14,
    ),
    variants={
        "L": Variant(
            dim=1024,
            model="vit_large_patch14_clip_quickgelu_224",
            weights="hf://openai/clip-vit-large-patch14/model.safetensors",
        )
    },
    network=_build,
    layouts=(_OPENAI, _HUB),
    last_layer_only=True,
)
