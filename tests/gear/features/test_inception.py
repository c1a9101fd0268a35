"""The FID InceptionV3: reading its weights file, and staying in evaluation mode."""

from __future__ import annotations

import pytest
import torch

from gear.features.inception import NUM_FEATURES, InceptionV3
from harness.contract.errors import UserError


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return InceptionV3()


def test_one_vector_per_image_of_any_size(network):
    images = torch.rand(2, 3, 40, 30, generator=torch.Generator().manual_seed(0))
    features = network(images)
    assert features.shape == (2, NUM_FEATURES)
    torch.testing.assert_close(network(images[1:]), features[1:], atol=1e-5, rtol=1e-4)


def test_training_mode_is_declined(network):
    assert not network.train().training
    assert not network.Mixed_7c.branch1x1.bn.training
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_a_weights_file_is_read_key_for_key(network, tmp_path):
    weights = {key: value for key, value in network.state_dict().items() if "num_batches" not in key}
    torch.save(weights, tmp_path / "inception.pth")
    read = InceptionV3.from_file(tmp_path / "inception.pth")
    assert all(torch.equal(value, read.state_dict()[key]) for key, value in weights.items())

    del weights["Mixed_6b.branch7x7_2.conv.weight"]
    torch.save(weights, tmp_path / "damaged.pth")
    with pytest.raises(UserError, match=r"damaged.pth does not fit .* 1 missing \(Mixed_6b.branch7x7_2.conv.weight\)"):
        InceptionV3.from_file(tmp_path / "damaged.pth")
