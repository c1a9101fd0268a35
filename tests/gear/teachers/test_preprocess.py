"""The preprocessing of each family of teachers."""

from __future__ import annotations

import pytest
import torch

from gear.teachers import FAMILIES
from gear.teachers.preprocess import preprocess
from gear.teachers.vit import ViTFamily

RULES = {name: family.input for name, family in FAMILIES.items() if isinstance(family, ViTFamily)}


@pytest.mark.parametrize("family", RULES)
@pytest.mark.parametrize("image_size", [256, 512])
def test_every_family_yields_one_patch_per_token_of_a_downsample_16_tokenizer(family, image_size):
    rule = RULES[family]
    assert rule.side(image_size) / rule.patch == image_size / 16


@pytest.mark.parametrize(("image_size", "side"), [(256, 224), (384, 336), (512, 448)])
def test_dinov2_sees_14_pixels_for_every_16(image_size, side):
    images_u8 = torch.zeros(1, 3, image_size, image_size, dtype=torch.uint8)
    assert preprocess(images_u8, RULES["dinov2"]).shape == (1, 3, side, side)


@pytest.mark.parametrize("family", RULES)
def test_a_flat_image_stays_flat_and_is_normalised(family):
    images_u8 = torch.full((1, 3, 256, 256), 51, dtype=torch.uint8)
    mean, std = RULES[family].normalisation
    want = (torch.full((3,), 0.2) - torch.tensor(mean)) / torch.tensor(std)
    pixels = preprocess(images_u8, RULES[family])
    torch.testing.assert_close(pixels, want[None, :, None, None].expand_as(pixels), rtol=1e-4, atol=1e-5)


def test_wrong_input_is_refused_with_a_message():
    with pytest.raises(ValueError, match="uint8"):
        preprocess(torch.zeros(1, 3, 256, 256), RULES["dinov2"])
    with pytest.raises(ValueError, match="too small"):
        preprocess(torch.zeros(1, 3, 64, 64, dtype=torch.uint8), RULES["clip"])
