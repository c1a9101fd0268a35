"""CLIP's preprocessing against its library's, and a folder without a model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.contract.errors import MissingAsset


def test_the_transform_is_the_librarys() -> None:
    from transformers import CLIPImageProcessor

    from harness.scoring.networks.clip import transform

    image_u8 = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    theirs = CLIPImageProcessor()(images=Image.fromarray(image_u8), return_tensors="np")["pixel_values"][0]
    # The library rounds and resizes with torchvision nowadays, which differs by a level here and there.
    assert np.abs(transform(image_u8, 224) - theirs).max() < 0.03


def test_a_folder_without_a_model_is_named_with_the_fix(tmp_path: Path) -> None:
    import torch

    from harness.scoring.networks.clip import ClipCosines

    with pytest.raises(MissingAsset, match=r"holds no CLIP model that can be loaded .*; name another folder\."):
        ClipCosines(tmp_path, torch.device("cpu"), fix="name another folder.")
