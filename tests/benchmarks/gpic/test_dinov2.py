"""The feature network, at toy width: against transformers' implementation, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.contract.errors import MissingAsset
from tests.lazy import LazyModule

torch: Any = LazyModule("torch")
dinov2: Any = LazyModule("benchmarks.gpic.dinov2")

WIDTH, DEPTH, PATCH = 64, 2, 14


def their_model(image_size: int):
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    config = Dinov2Config(
        hidden_size=WIDTH,
        num_hidden_layers=DEPTH,
        num_attention_heads=1,
        mlp_ratio=4,
        image_size=image_size,
        patch_size=PATCH,
        layerscale_value=0.5,
    )
    return Dinov2Model(config).eval()


def our_keys(theirs: dict[str, Any]) -> dict[str, Any]:
    """transformers' names -> those of Meta's checkpoint; queries, keys and values become one matrix."""
    ours = {
        "cls_token": theirs["embeddings.cls_token"],
        "pos_embed": theirs["embeddings.position_embeddings"],
        "mask_token": theirs["embeddings.mask_token"],
        **{f"norm.{part}": theirs[f"layernorm.{part}"] for part in ("weight", "bias")},
        **{
            f"patch_embed.proj.{part}": theirs[f"embeddings.patch_embeddings.projection.{part}"]
            for part in ("weight", "bias")
        },
    }
    names = {"norm1": "norm1", "norm2": "norm2", "attn.proj": "attention.o_proj", "mlp.fc1": "mlp.fc1"}
    for block in range(DEPTH):
        layer = {key.split(f"layer.{block}.", 1)[1]: value for key, value in theirs.items() if f"layer.{block}." in key}
        for part in ("weight", "bias"):
            for mine, yours in {**names, "mlp.fc2": "mlp.fc2"}.items():
                ours[f"blocks.{block}.{mine}.{part}"] = layer[f"{yours}.{part}"]
            qkv = [layer[f"attention.{name}_proj.{part}"] for name in "qkv"]
            ours[f"blocks.{block}.attn.qkv.{part}"] = torch.cat(qkv)
        for scale in (1, 2):
            ours[f"blocks.{block}.ls{scale}.gamma"] = layer[f"layer_scale{scale}.lambda1"]
    return ours


@pytest.mark.slow
def test_the_class_token_is_that_of_another_implementation() -> None:
    model = their_model(image_size=224)
    network = dinov2.build_network(our_keys(model.state_dict()), source="toy")
    pixels = torch.randn(3, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        wanted = model(pixels).last_hidden_state[:, 0]
        torch.testing.assert_close(network(pixels), wanted, rtol=1e-4, atol=1e-5)


def test_positions_are_resampled_by_the_scale_with_the_offset() -> None:
    table = torch.randn(1, 1 + 37 * 37, 8)
    resampled = dinov2.position_table(table, 16)
    assert resampled.shape == (1, 1 + 16 * 16, 8)
    torch.testing.assert_close(resampled[:, 0], table[:, 0])
    constant = dinov2.position_table(torch.ones(1, 1 + 37 * 37, 2), 16)
    torch.testing.assert_close(constant, torch.ones(1, 257, 2))
    assert dinov2.position_table(resampled, 16) is resampled


def test_images_of_any_shape_become_one_size() -> None:
    image_u8 = np.random.default_rng(0).integers(0, 256, (30, 50, 3), dtype=np.uint8)
    assert dinov2.transform(image_u8).shape == (3, 224, 224)
    assert dinov2.transform(image_u8).dtype == np.float32


def test_the_whole_extractor_reads_a_checkpoint(tmp_path: Path) -> None:
    torch.save(our_keys(their_model(image_size=518).state_dict()), tmp_path / "weights.pth")
    images_u8 = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    features = dinov2.DINOv2Features(tmp_path / "weights.pth")(images_u8)
    assert features.shape == (2, WIDTH)
    assert features.dtype == np.float32


@pytest.mark.parametrize("content", [b"<html>404</html>", None])
def test_a_file_that_is_no_such_network_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"fc.weight": torch.zeros(2)}, path) if content is None else path.write_bytes(content)
    with pytest.raises(MissingAsset, match=r"weights\.pth.*harness assets pull dinov2-vitl14"):
        dinov2.DINOv2Features(path)
