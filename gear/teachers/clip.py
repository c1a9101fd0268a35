"""CLIP ViT-L/14 (arXiv:2103.00020): the image tower up to its last block, before the final norm and projection."""

from __future__ import annotations

from torch import nn

from gear.teachers.family import Family, Variant, timm_vit
from gear.teachers.keys import DROPPED, KeyTable

_BLOCK = "visual.transformer.resblocks.*"
_LAYER = "vision_model.encoder.layers.*"

_OPENAI = KeyTable(
    "visual.class_embedding",
    {
        "visual.class_embedding": "cls_token",
        "visual.positional_embedding": "pos_embed",
        "visual.conv1": "patch_embed.proj",
        "visual.ln_pre": "norm_pre",
        f"{_BLOCK}.attn.in_proj_weight": "blocks.*.attn.qkv.weight",
        f"{_BLOCK}.attn.in_proj_bias": "blocks.*.attn.qkv.bias",
        f"{_BLOCK}.attn.out_proj": "blocks.*.attn.proj",
        f"{_BLOCK}.ln_1": "blocks.*.norm1",
        f"{_BLOCK}.ln_2": "blocks.*.norm2",
        f"{_BLOCK}.mlp.c_fc": "blocks.*.mlp.fc1",
        f"{_BLOCK}.mlp.c_proj": "blocks.*.mlp.fc2",
        "visual.ln_post": DROPPED,
        "visual.proj": DROPPED,
        # The text tower and the constants of the archive.
        "transformer": DROPPED,
        "token_embedding": DROPPED,
        "positional_embedding": DROPPED,
        "ln_final": DROPPED,
        "text_projection": DROPPED,
        "logit_scale": DROPPED,
        "input_resolution": DROPPED,
        "context_length": DROPPED,
        "vocab_size": DROPPED,
    },
)
"""The state dict of OpenAI's model."""

_HUB = KeyTable(
    "vision_model.pre_layrnorm.weight",  # the misspelling is in the file
    {
        "text_model": DROPPED,
        "logit_scale": DROPPED,
        "text_projection": DROPPED,
        "visual_projection": DROPPED,
        "vision_model.post_layernorm": DROPPED,
        "vision_model.embeddings.position_ids": DROPPED,
        "vision_model.embeddings.class_embedding": "cls_token",
        "vision_model.embeddings.patch_embedding": "patch_embed.proj",
        "vision_model.embeddings.position_embedding.weight": "pos_embed",
        "vision_model.pre_layrnorm": "norm_pre",
        tuple(f"{_LAYER}.self_attn.{name}_proj" for name in "qkv"): "blocks.*.attn.qkv",
        f"{_LAYER}.self_attn.out_proj": "blocks.*.attn.proj",
        f"{_LAYER}.layer_norm1": "blocks.*.norm1",
        f"{_LAYER}.layer_norm2": "blocks.*.norm2",
        f"{_LAYER}.mlp.fc1": "blocks.*.mlp.fc1",
        f"{_LAYER}.mlp.fc2": "blocks.*.mlp.fc2",
    },
)
"""model.safetensors of the hub's openai/clip-vit-large-patch14, which holds both towers."""


def _build(variant: Variant, side: int) -> nn.Module:
    return timm_vit(variant, side, final_norm=False)


CLIP = Family(
    name="clip",
    variants={
        "L": Variant(
            dim=1024,
            model="vit_large_patch14_clip_quickgelu_224",
            weights="hf://openai/clip-vit-large-patch14/model.safetensors",
        )
    },
    build=_build,
    layouts=(_OPENAI, _HUB),
    last_layer_only=True,
)
