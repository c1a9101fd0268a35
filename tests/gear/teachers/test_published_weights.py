"""Synthetic files of every published layout, with the right names and shapes, give what an independent model computes.

The independent models are those of the transformers library, for all families but V-JEPA 2.1, which it does not have.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import transformers
from torch import Tensor, nn

from gear.teachers.layers import resample_position_table
from gear.teachers.vit import ViTTeacher
from harness.contract.errors import UserError
from tests.gear.teachers.small import HEADS, WIDTH, as_seen_by, shallow

State = dict[str, Tensor]

IMAGE = torch.randint(0, 256, (2, 3, 256, 256), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
SIZES: dict[str, Any] = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": HEADS}


def randomized(model: nn.Module) -> nn.Module:
    """Every parameter drawn again, so that none has its default value."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def fused(state: State, template: str) -> Tensor:
    """q, k and v in one tensor, as their authors store them."""
    return torch.cat([state[template.format(name)] for name in "qkv"])


def loaded(teacher: ViTTeacher, content: Any, path: Path) -> ViTTeacher:
    torch.save(content, path)
    teacher.load(path)
    return teacher


def same(teacher: ViTTeacher, want: Tensor) -> None:
    torch.testing.assert_close(teacher.features(IMAGE), want, rtol=1e-4, atol=1e-4)


# DINOv2 ---------------------------------------------------------------------------------------------------------------


def dinov2_model(registers: int, gated: bool) -> nn.Module:
    common = {**SIZES, "image_size": 224, "patch_size": 14, "use_swiglu_ffn": gated}
    if registers:
        config = transformers.Dinov2WithRegistersConfig(num_register_tokens=registers, **common)
        return randomized(transformers.Dinov2WithRegistersModel(config))
    return randomized(transformers.Dinov2Model(transformers.Dinov2Config(**common)))


def dinov2_file(model: nn.Module, table: Tensor, gated: bool) -> State:
    """As facebookresearch/dinov2 names it, with a position table for 37 x 37 patches."""
    theirs = model.state_dict()
    file = {
        "cls_token": theirs["embeddings.cls_token"],
        "mask_token": theirs["embeddings.mask_token"],
        "pos_embed": table,
        "patch_embed.proj.weight": theirs["embeddings.patch_embeddings.projection.weight"],
        "patch_embed.proj.bias": theirs["embeddings.patch_embeddings.projection.bias"],
        "norm.weight": theirs["layernorm.weight"],
        "norm.bias": theirs["layernorm.bias"],
    }
    if "embeddings.register_tokens" in theirs:
        file["register_tokens"] = theirs["embeddings.register_tokens"]
    for block in range(2):
        here, there = f"blocks.{block}", f"encoder.layer.{block}"
        for kind in ("weight", "bias"):
            file[f"{here}.attn.qkv.{kind}"] = fused(theirs, f"{there}.attention.{{}}_proj.{kind}")
            file[f"{here}.attn.proj.{kind}"] = theirs[f"{there}.attention.o_proj.{kind}"]
            for norm in ("norm1", "norm2"):
                file[f"{here}.{norm}.{kind}"] = theirs[f"{there}.{norm}.{kind}"]
            if gated:
                halves = [theirs[f"{there}.mlp.{name}_proj.{kind}"] for name in ("gate", "up")]
                file[f"{here}.mlp.w12.{kind}"] = torch.cat(halves)
                file[f"{here}.mlp.w3.{kind}"] = theirs[f"{there}.mlp.down_proj.{kind}"]
            else:
                file[f"{here}.mlp.fc1.{kind}"] = theirs[f"{there}.mlp.fc1.{kind}"]
                file[f"{here}.mlp.fc2.{kind}"] = theirs[f"{there}.mlp.fc2.{kind}"]
        for which in (1, 2):
            file[f"{here}.ls{which}.gamma"] = theirs[f"{there}.layer_scale{which}.lambda1"]
    return file


@pytest.mark.parametrize("gated", [False, True], ids=["mlp", "swiglu"])
@pytest.mark.parametrize("registers", [0, 4])
def test_dinov2_as_its_authors_publish_it(registers: int, gated: bool, tmp_path: Path) -> None:
    model = dinov2_model(registers, gated)
    table = 0.2 * torch.randn(1, 1 + 37 * 37, WIDTH, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        model.get_parameter("embeddings.position_embeddings").copy_(resample_position_table(table, 16))
        want = model(as_seen_by("dinov2", IMAGE)).last_hidden_state[:, 1 + registers :]
    family = "dinov2_reg" if registers else "dinov2"
    teacher = shallow(family, depth=2, size="g" if gated else "b")
    same(loaded(teacher, dinov2_file(model, table, gated), tmp_path / "dinov2.pth"), want)


@pytest.mark.parametrize("gated", [False, True], ids=["mlp", "swiglu"])
@pytest.mark.parametrize("registers", [0, 4])
def test_dinov2_as_the_hub_has_it(registers: int, gated: bool, tmp_path: Path) -> None:
    model = dinov2_model(registers, gated)
    with torch.no_grad():
        want = model(as_seen_by("dinov2", IMAGE)).last_hidden_state[:, 1 + registers :]
    model.save_pretrained(tmp_path)
    assert "encoder.layer.0.attention.attention.query.weight" in hub_file(tmp_path), "the names of the hub's files"
    teacher = shallow("dinov2_reg" if registers else "dinov2", depth=2, size="g" if gated else "b")
    teacher.load(tmp_path)
    same(teacher, want)


@pytest.mark.parametrize("family", ["dinov2", "dinov2_reg"])
def test_timms_own_file_of_dinov2_is_resampled_too(family: str, tmp_path: Path) -> None:
    teacher = shallow(family, depth=1)
    file = teacher.network.state_dict()
    special = file["pos_embed"].shape[1] - 256
    file["pos_embed"] = torch.randn(1, special + 37 * 37, WIDTH)
    loaded(teacher, file, tmp_path / "timm.pth")
    want = resample_position_table(file["pos_embed"], 16, num_special=special)
    assert torch.equal(teacher.network.pos_embed, want)


# DINOv3 ---------------------------------------------------------------------------------------------------------------


def dinov3_model(gated: bool) -> nn.Module:
    config = transformers.DINOv3ViTConfig(
        **SIZES, intermediate_size=4 * WIDTH, use_gated_mlp=gated, hidden_act="silu" if gated else "gelu",
        num_register_tokens=4, image_size=256,
    )  # fmt: skip
    return randomized(transformers.DINOv3ViTModel(config))


def dinov3_file(model: nn.Module, gated: bool) -> State:
    """As facebookresearch/dinov3 names it; the bias of the keys is there, and masked by NaN until training sets it."""
    theirs = model.state_dict()
    file = {
        "cls_token": theirs["embeddings.cls_token"],
        "storage_tokens": theirs["embeddings.register_tokens"],
        "mask_token": theirs["embeddings.mask_token"][0],
        "rope_embed.periods": torch.ones(WIDTH // HEADS // 4),
        "patch_embed.proj.weight": theirs["embeddings.patch_embeddings.weight"],
        "patch_embed.proj.bias": theirs["embeddings.patch_embeddings.bias"],
        "norm.weight": theirs["norm.weight"],
        "norm.bias": theirs["norm.bias"],
        "local_cls_norm.weight": torch.ones(WIDTH),
        "local_cls_norm.bias": torch.ones(WIDTH),
    }
    mlp = {"w1": "gate_proj", "w2": "up_proj", "w3": "down_proj"} if gated else {"fc1": "up_proj", "fc2": "down_proj"}
    for block in range(2):
        here, there = f"blocks.{block}", f"model.layer.{block}"
        q, v = (theirs[f"{there}.attention.{name}_proj.bias"] for name in "qv")
        file[f"{here}.attn.qkv.weight"] = fused(theirs, f"{there}.attention.{{}}_proj.weight")
        file[f"{here}.attn.qkv.bias"] = torch.cat([q, torch.full_like(q, 9.0), v])
        file[f"{here}.attn.qkv.bias_mask"] = torch.cat([torch.ones_like(q), torch.zeros_like(q), torch.ones_like(v)])
        for kind in ("weight", "bias"):
            file[f"{here}.attn.proj.{kind}"] = theirs[f"{there}.attention.o_proj.{kind}"]
            for norm in ("norm1", "norm2"):
                file[f"{here}.{norm}.{kind}"] = theirs[f"{there}.{norm}.{kind}"]
            for ours, name in mlp.items():
                file[f"{here}.mlp.{ours}.{kind}"] = theirs[f"{there}.mlp.{name}.{kind}"]
        for which in (1, 2):
            file[f"{here}.ls{which}.gamma"] = theirs[f"{there}.layer_scale{which}.lambda1"]
    return file


@pytest.mark.parametrize("gated", [False, True], ids=["mlp", "swiglu"])
@pytest.mark.parametrize("layout", ["authors", "hub"])
def test_dinov3_as_it_is_published(layout: str, gated: bool, tmp_path: Path) -> None:
    model = dinov3_model(gated)
    with torch.no_grad():
        want = model(as_seen_by("dinov3", IMAGE)).last_hidden_state[:, 5:]
    teacher = shallow("dinov3", depth=2, size="hplus" if gated else "b")
    if layout == "authors":
        same(loaded(teacher, dinov3_file(model, gated), tmp_path / "dinov3.pth"), want)
    else:
        model.save_pretrained(tmp_path)
        assert any(key.startswith("layer.0.") for key in hub_file(tmp_path)), "the names of the hub's files"
        teacher.load(tmp_path)
        same(teacher, want)


def hub_file(folder: Path) -> State:
    return safetensors.torch.load_file(folder / "model.safetensors")


# SigLIP 2 and CLIP ----------------------------------------------------------------------------------------------------

TEXT_KEYS = {"logit_scale": torch.zeros(1), "text_model.embeddings.token_embedding.weight": torch.zeros(3, 4)}
"""What the two-tower files of the hub hold besides the image tower."""


def save_beside_text(model: nn.Module, folder: Path, **more: Tensor) -> Path:
    """The image tower's hub file with keys of the text tower in it."""
    model.save_pretrained(folder)
    tower = {
        key if key.startswith("vision_model.") else f"vision_model.{key}": v for key, v in hub_file(folder).items()
    }
    safetensors.torch.save_file({**tower, **TEXT_KEYS, **more}, folder / "model.safetensors")
    return folder / "model.safetensors"


def test_siglip2_as_it_is_published(tmp_path: Path) -> None:
    config = transformers.SiglipVisionConfig(
        **SIZES, intermediate_size=4 * WIDTH, image_size=256, patch_size=16, hidden_act="gelu_pytorch_tanh"
    )
    model = randomized(transformers.SiglipVisionModel(config))
    with torch.no_grad():
        want = model(as_seen_by("siglip2", IMAGE)).last_hidden_state
    teacher = shallow("siglip2", depth=2)
    teacher.load(save_beside_text(model, tmp_path, logit_bias=torch.zeros(1)))
    same(teacher, want)


def clip_model() -> nn.Module:
    config = transformers.CLIPVisionConfig(
        **SIZES, intermediate_size=4 * WIDTH, image_size=224, patch_size=14, hidden_act="quick_gelu"
    )
    return randomized(transformers.CLIPVisionModel(config))


def clip_file(hub: State) -> State:
    """OpenAI's names, in half precision as in its archive, with a little of the text tower."""
    tower = {key.removeprefix("vision_model."): value for key, value in hub.items()}
    file = {
        "visual.class_embedding": tower["embeddings.class_embedding"],
        "visual.positional_embedding": tower["embeddings.position_embedding.weight"],
        "visual.conv1.weight": tower["embeddings.patch_embedding.weight"],
        "visual.proj": torch.zeros(WIDTH, 7),
        "positional_embedding": torch.zeros(77, 5),
        "transformer.resblocks.0.ln_1.weight": torch.zeros(5),
        "token_embedding.weight": torch.zeros(9, 5),
        "ln_final.weight": torch.zeros(5),
        "text_projection": torch.zeros(5, 7),
        "logit_scale": torch.zeros(()),
        "input_resolution": torch.tensor(224),
        "context_length": torch.tensor(77),
        "vocab_size": torch.tensor(9),
    }
    for kind in ("weight", "bias"):
        file[f"visual.ln_pre.{kind}"] = tower[f"pre_layrnorm.{kind}"]
        file[f"visual.ln_post.{kind}"] = tower[f"post_layernorm.{kind}"]
        for block in range(2):
            here, there = f"visual.transformer.resblocks.{block}", f"encoder.layers.{block}"
            file[f"{here}.attn.in_proj_{kind}"] = fused(tower, f"{there}.self_attn.{{}}_proj.{kind}")
            file[f"{here}.attn.out_proj.{kind}"] = tower[f"{there}.self_attn.out_proj.{kind}"]
            file[f"{here}.ln_1.{kind}"] = tower[f"{there}.layer_norm1.{kind}"]
            file[f"{here}.ln_2.{kind}"] = tower[f"{there}.layer_norm2.{kind}"]
            file[f"{here}.mlp.c_fc.{kind}"] = tower[f"{there}.mlp.fc1.{kind}"]
            file[f"{here}.mlp.c_proj.{kind}"] = tower[f"{there}.mlp.fc2.{kind}"]
    return file


@pytest.mark.parametrize("layout", ["openai", "hub"])
def test_clip_as_it_is_published(layout: str, tmp_path: Path) -> None:
    model = clip_model()
    with torch.no_grad():  # the last block's output: nothing after it
        want = model(as_seen_by("clip", IMAGE)).last_hidden_state[:, 1:]
    teacher = shallow("clip", depth=2)
    file = save_beside_text(model, tmp_path)
    if layout == "hub":
        teacher.load(file)
    else:
        loaded(teacher, clip_file(hub_file(tmp_path)), tmp_path / "clip.pt")
    same(teacher, want)


# Strictness -----------------------------------------------------------------------------------------------------------


def test_a_missing_and_an_unknown_key_are_named(tmp_path: Path) -> None:
    model = dinov3_model(False)
    file = dinov3_file(model, False)
    del file["blocks.1.mlp.fc2.bias"]
    with pytest.raises(UserError, match=r"1 missing \(blocks\.1\.mlp\.fc2\.bias\)"):
        loaded(shallow("dinov3", depth=2), file, tmp_path / "a.pth")
    file = dinov3_file(model, False) | {"blocks.1.adapter.weight": torch.zeros(1)}
    with pytest.raises(UserError, match=r"1 left over \(blocks\.1\.adapter\.weight\)"):
        loaded(shallow("dinov3", depth=2), file, tmp_path / "b.pth")


def test_a_key_of_which_one_part_is_missing_is_named(tmp_path: Path) -> None:
    file = save_beside_text(clip_model(), tmp_path)
    weights = hub_file(tmp_path)
    del weights["vision_model.encoder.layers.0.self_attn.k_proj.weight"]
    safetensors.torch.save_file(weights, file)
    with pytest.raises(UserError, match=r"missing \(blocks\.0\.attn\.qkv\.weight\)"):
        shallow("clip", depth=2).load(file)


def test_another_models_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"does not fit the VisionTransformer"):
        loaded(shallow("dinov2", depth=2), dinov3_file(dinov3_model(False), False), tmp_path / "dinov3.pth")
    with pytest.raises(UserError, match=r"holds no weights of a clip teacher \(found: epoch"):
        loaded(shallow("clip", depth=1), {"epoch": 3}, tmp_path / "c.pt")


def test_a_hub_folder_without_weights_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"holds no \.safetensors file"):
        shallow("siglip2", depth=1).load(tmp_path)
