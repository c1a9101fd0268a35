"""V-JEPA 2.1 against its description, written out plainly: one head and one patch at a time, complex rotations."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gear.teachers.jepa import Encoder, rotary_table, rotate
from harness.contract.errors import UserError
from tests.gear.teachers.small import HEADS, WIDTH, as_seen_by, shallow

HEAD = WIDTH // HEADS
IMAGE = torch.randint(0, 256, (1, 3, 256, 256), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def authors_file(teacher_weights: dict[str, Tensor]) -> dict[str, object]:
    """A training file: the encoders of two kinds, wrapped, with what only videos need."""
    renamed = {
        "patch_embed.weight": "patch_embed_img.proj.weight",
        "patch_embed.bias": "patch_embed_img.proj.bias",
        "modality_embed": "img_mod_embed",
        "norm.weight": "norms_block.3.weight",
        "norm.bias": "norms_block.3.bias",
    }
    encoder = {renamed.get(key, key): value for key, value in teacher_weights.items()}
    encoder["patch_embed_img.proj.weight"] = encoder["patch_embed_img.proj.weight"].unsqueeze(2)  # one frame deep
    encoder |= {
        "patch_embed.proj.weight": torch.zeros(WIDTH, 3, 2, 16, 16),
        "patch_embed.proj.bias": torch.zeros(WIDTH),
        "video_mod_embed": torch.zeros(1, 1, WIDTH),
    }
    for depth in range(3):
        encoder |= {f"norms_block.{depth}.{kind}": torch.zeros(WIDTH) for kind in ("weight", "bias")}
    wrapped = {f"module.backbone.{key}": value for key, value in encoder.items()}
    return {"ema_encoder": wrapped, "encoder": {}, "predictor": {"module.x": torch.zeros(1)}, "epoch": 3}


def plain_rotation(vector: Tensor, row: float, column: float) -> Tensor:
    """One head's query or key at one position: each third as complex numbers, turned by position * frequency."""
    third = 2 * ((len(vector) // 3) // 2)
    turned = vector.clone()
    for start, position in ((0, 0.0), (third, row), (2 * third, column)):
        pairs = torch.view_as_complex(vector[start : start + third].reshape(-1, 2).contiguous())
        angles = torch.tensor([position / 10_000 ** (2 * j / third) for j in range(third // 2)])
        turned[start : start + third] = torch.view_as_real(
            pairs * torch.polar(torch.ones_like(angles), angles)
        ).flatten()
    return turned


@pytest.mark.parametrize("grid", [4, 16, 32])
@pytest.mark.parametrize("head_dim", [24, 64])
def test_a_grid_of_any_size_spans_the_sixteen_positions_of_training(grid: int, head_dim: int) -> None:
    x = torch.randn(1, 1, grid * grid, head_dim)
    turned = rotate(x, rotary_table(grid, head_dim))
    for token in (0, 1, grid, grid * grid - 1):
        row, column = (15.0 * cell / (grid - 1) for cell in divmod(token, grid))
        torch.testing.assert_close(
            turned[0, 0, token], plain_rotation(x[0, 0, token], row, column), atol=1e-5, rtol=1e-5
        )


def test_the_remaining_channels_are_not_rotated() -> None:
    x = torch.randn(1, 1, 256, 64)
    assert torch.equal(rotate(x, rotary_table(16, 64))[..., 60:], x[..., 60:])


def plain_forward(network: Encoder, pixels: Tensor) -> Tensor:
    """The description in the order of its sentences, for one image."""
    weights = dict(network.state_dict())
    patches = pixels[0].unfold(1, 16, 16).unfold(2, 16, 16).permute(1, 2, 0, 3, 4).reshape(256, -1)
    x = patches @ weights["patch_embed.weight"].flatten(1).T + weights["patch_embed.bias"]
    x = x + weights["modality_embed"][0]
    for index in range(len(network.blocks)):
        part = {key.removeprefix(f"blocks.{index}."): value for key, value in weights.items()}
        y = F.layer_norm(x, (WIDTH,), part["norm1.weight"], part["norm1.bias"], 1e-6)
        qkv = (y @ part["attn.qkv.weight"].T + part["attn.qkv.bias"]).reshape(256, 3, HEADS, HEAD)
        heads = []
        for head in range(HEADS):
            q, k = (
                torch.stack([plain_rotation(qkv[t, which, head], *map(float, divmod(t, 16))) for t in range(256)])
                for which in (0, 1)
            )
            heads.append(torch.softmax(q @ k.T / HEAD**0.5, dim=-1) @ qkv[:, 2, head])
        x = x + torch.cat(heads, dim=-1) @ part["attn.proj.weight"].T + part["attn.proj.bias"]
        y = F.layer_norm(x, (WIDTH,), part["norm2.weight"], part["norm2.bias"], 1e-6)
        y = F.gelu(y @ part["mlp.fc1.weight"].T + part["mlp.fc1.bias"])
        x = x + y @ part["mlp.fc2.weight"].T + part["mlp.fc2.bias"]
    return F.layer_norm(x, (WIDTH,), weights["norm.weight"], weights["norm.bias"], 1e-6)


@torch.no_grad()
def test_the_encoder_computes_what_its_description_says() -> None:
    teacher = shallow("jepa21", depth=2)
    want = plain_forward(teacher.network, as_seen_by("jepa21", IMAGE))
    torch.testing.assert_close(teacher.features(IMAGE)[0], want, rtol=1e-4, atol=1e-4)


def test_the_averaged_encoder_is_loaded_from_the_authors_file(tmp_path: Path) -> None:
    source, target = shallow("jepa21", depth=2, seed=1), shallow("jepa21", depth=2, seed=2)
    torch.save(authors_file(source.network.state_dict()), tmp_path / "vjepa2_1.pt")
    assert not torch.equal(target.features(IMAGE), source.features(IMAGE))
    target.load(tmp_path / "vjepa2_1.pt")
    assert torch.equal(target.features(IMAGE), source.features(IMAGE))


def test_v_jepa_2_is_not_taken_for_2_1(tmp_path: Path) -> None:
    """The older model has no patch embedding for images."""
    file = authors_file(shallow("jepa21", depth=1).network.state_dict())
    encoder = file["ema_encoder"]
    assert isinstance(encoder, dict)
    older = {key: value for key, value in encoder.items() if "img" not in key and "norms_block" not in key}
    torch.save({"ema_encoder": older}, tmp_path / "vjepa2.pt")
    with pytest.raises(UserError, match="missing"):
        shallow("jepa21", depth=1).load(tmp_path / "vjepa2.pt")
