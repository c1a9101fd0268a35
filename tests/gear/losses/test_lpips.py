"""LPIPS: reading its two weight files, and staying finite."""

from __future__ import annotations

import importlib.util
import sys

import pytest
import torch

from gear.config import RunConfig
from gear.losses import LPIPS
from gear.losses.lpips import packaged_heads, unit
from gear.training.stages.losses import build_loss_head
from harness.contract.errors import EnvironmentFailure, MissingAsset, UserError
from tests.gear import tiny
from tests.gear.packages import installed_lpips


@pytest.fixture(scope="module")
def lpips():
    torch.manual_seed(0)
    lpips = LPIPS().eval()
    for head in range(5):
        lpips.get_submodule(f"lin{head}").model[1].weight.abs_()
    return lpips


@pytest.fixture
def weight_files(lpips, tmp_path):
    """The pair of files as torchvision and the authors of LPIPS lay them out."""
    own = lpips.state_dict()
    vgg16 = {"features." + key.split(".", 2)[2]: value for key, value in own.items() if key.startswith("net.slice")} | {
        "classifier.6.bias": torch.zeros(1000)
    }
    heads = {key: value for key, value in own.items() if key.startswith("lin")}
    torch.save(vgg16, tmp_path / "vgg16-397923af.pth")
    # The published heads are in the format of PyTorch before 1.6.
    torch.save(heads, tmp_path / "vgg.pth", _use_new_zipfile_serialization=False)
    return tmp_path / "vgg16-397923af.pth", tmp_path / "vgg.pth"


def test_the_weights_of_two_files_give_the_same_distance(lpips, weight_files):
    x, y = torch.rand(2, 1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    read = LPIPS.from_files(*weight_files)
    assert torch.equal(read(x, y), lpips(x, y))
    assert read(x, y).shape == (1, 1, 1, 1)
    assert read(x, y).item() > 0


def test_swapped_files_are_refused(weight_files):
    vgg16, heads = weight_files
    with pytest.raises(UserError, match="31 missing") as refusal:
        LPIPS.from_files(vgg16=heads, heads=vgg16)
    assert str(vgg16) in str(refusal.value) and str(heads) in str(refusal.value)


def test_a_training_checkpoint_is_not_taken_for_weights(weight_files, tmp_path):
    torch.save({"vq": {}, "steps": 3}, tmp_path / "model.pt")
    with pytest.raises(UserError, match=r"model.pt is not a plain state dict \(found: vq, steps\)"):
        LPIPS.from_files(tmp_path / "model.pt", weight_files[1])


def test_a_missing_file_is_named(weight_files, tmp_path):
    with pytest.raises(UserError, match=r"nowhere.pth does not exist"):
        LPIPS.from_files(tmp_path / "nowhere.pth", weight_files[1])


def test_the_heads_are_those_of_the_installed_package_which_is_not_imported(weight_files, tmp_path, monkeypatch):
    path = installed_lpips(tmp_path, monkeypatch)
    path.write_bytes(weight_files[1].read_bytes())
    assert packaged_heads() == path
    config = RunConfig.from_dict({**tiny.VALUES, **lpips_loss(weight_files[0])})
    head = build_loss_head(config)
    assert isinstance(head.perceptual, LPIPS)
    assert torch.equal(head.perceptual.lin0.model[1].weight, torch.load(path)["lin0.model.1.weight"])
    assert "lpips" not in sys.modules


def test_without_the_package_a_sentence_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EnvironmentFailure, match=r"needs the package lpips .* pip install 'gear-harness\[gear\]'"):
        packaged_heads()


def test_without_vgg16_a_sentence_names_the_setting():
    with pytest.raises(MissingAsset, match=r"needs torchvision's VGG16: .* perceptual\.vgg_weights=PATH"):
        build_loss_head(RunConfig.from_dict({**tiny.VALUES, **lpips_loss(None)}))


def lpips_loss(vgg_weights):
    """The sections of a configuration with a perceptual loss."""
    weights = None if vgg_weights is None else str(vgg_weights)
    return {
        "perceptual": {"name": "lpips", "vgg_weights": weights},
        "loss": {**tiny.VALUES.get("loss", {}), "perceptual_weight": 1.0},
    }


def test_nothing_in_it_is_trained(lpips):
    assert not any(parameter.requires_grad for parameter in lpips.parameters())


def test_an_image_is_at_no_distance_from_itself(lpips):
    x = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert lpips(x, x).item() == 0.0


def test_the_gradient_is_finite_where_all_channels_are_dead():
    """The square root's slope is infinite there: in the original, such a position makes the gradient NaN."""
    features = torch.zeros(1, 4, 1, 2)
    features[..., 1] = 1.0
    features.requires_grad_()
    unit(features).square().sum().backward()
    assert torch.isfinite(features.grad).all()
    torch.testing.assert_close(unit(features)[0, :, 0, 1].square().sum(), torch.tensor(1.0))
