"""The FID InceptionV3: reading its weights file, and staying in evaluation mode."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from harness.contract.errors import MissingAsset

if TYPE_CHECKING:
    from harness.scoring.networks.inception import InceptionV3

CHECK = Path(__file__).parents[4] / "benchmarks" / "coco" / "check" / "assets"
WEIGHTS = CHECK / "fid-inception" / "pt_inception-2015-12-05-6726825d.pth"


@pytest.fixture(scope="module")
def network() -> InceptionV3:
    import torch

    from harness.scoring.networks.inception import InceptionV3

    torch.manual_seed(0)
    return InceptionV3()


def test_one_vector_per_image_of_any_size(network: InceptionV3) -> None:
    import torch

    images = torch.rand(2, 3, 40, 30, generator=torch.Generator().manual_seed(0))
    features = network(images)
    assert features.shape == (2, 2048)
    torch.testing.assert_close(network(images[1:]), features[1:], atol=1e-5, rtol=1e-4)


def test_training_mode_is_declined(network: InceptionV3) -> None:
    assert not network.train().training
    assert not network.Mixed_7c.branch1x1.bn.training
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_a_weights_file_is_read_key_for_key(network: InceptionV3, tmp_path: Path) -> None:
    import torch

    weights = {key: value for key, value in network.state_dict().items() if "num_batches" not in key}
    torch.save(weights, tmp_path / "inception.pth")
    read = type(network).from_file(tmp_path / "inception.pth")
    assert all(torch.equal(value, read.state_dict()[key]) for key, value in weights.items())

    del weights["Mixed_6b.branch7x7_2.conv.weight"]
    torch.save(weights, tmp_path / "damaged.pth")
    wanted = r"damaged\.pth: does not hold the FID Inception weights .*Mixed_6b\.branch7x7_2\.conv\.weight"
    with pytest.raises(MissingAsset, match=wanted):
        type(network).from_file(tmp_path / "damaged.pth")


def test_a_file_that_is_not_weights_is_named(network: InceptionV3, tmp_path: Path) -> None:
    (tmp_path / "page.pth").write_text("<html>404</html>")
    with pytest.raises(MissingAsset, match=r"page\.pth: does not hold .* harness assets pull fid-inception"):
        type(network).from_file(tmp_path / "page.pth")


@pytest.mark.slow
def test_uint8_and_its_fraction_of_255_have_the_same_features() -> None:
    from harness.scoring.networks.inception import FIDFeatures

    images_u8 = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
    features = FIDFeatures(WEIGHTS)
    np.testing.assert_allclose(features(images_u8), features(images_u8.astype(np.float32) / 255.0), atol=1e-6)
