"""The scorer's Inception against gear's own, and CLIP's preprocessing against its library's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.coco.clip import transform
from benchmarks.coco.fid_inception import FIDFeatures, FIDInception
from gear.features.inception import InceptionV3
from harness.contract.errors import MissingAsset

CHECK = Path(__file__).parents[3] / "benchmarks" / "coco" / "check" / "assets"
WEIGHTS = CHECK / "fid-inception" / "pt_inception-2015-12-05-6726825d.pth"


@pytest.mark.slow
def test_two_implementations_of_the_network_agree() -> None:
    ours, theirs = FIDInception.from_file(WEIGHTS), InceptionV3()
    theirs.load_state_dict(ours.network.state_dict())
    images_01 = torch.rand(1, 3, 40, 56, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(ours(images_01), theirs(images_01), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_uint8_and_its_fraction_of_255_have_the_same_features() -> None:
    images_u8 = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
    network = FIDFeatures(WEIGHTS)
    np.testing.assert_allclose(network(images_u8), network(images_u8.astype(np.float32) / 255.0), atol=1e-6)


def test_a_file_that_is_not_the_weights_is_named(tmp_path: Path) -> None:
    torch.save({"fc.weight": torch.zeros(2)}, tmp_path / "weights.pth")
    with pytest.raises(MissingAsset, match="does not hold the FID Inception weights"):
        FIDInception.from_file(tmp_path / "weights.pth")


def test_clips_transform_is_the_librarys() -> None:
    from transformers import CLIPImageProcessor

    image_u8 = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    theirs = CLIPImageProcessor()(images=Image.fromarray(image_u8), return_tensors="np")["pixel_values"][0]
    # The library rounds and resizes with torchvision nowadays, which differs by a level here and there.
    assert np.abs(transform(image_u8) - theirs).max() < 0.03
