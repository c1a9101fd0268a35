"""The PatchGAN discriminator's size, shape and initialisation."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gear.losses import PatchDiscriminator


def test_a_256_px_image_gives_30_by_30_logits():
    with torch.device("meta"):
        discriminator = PatchDiscriminator()
        assert discriminator(torch.empty(2, 3, 256, 256)).shape == (2, 1, 30, 30)
    assert sum(parameter.numel() for parameter in discriminator.parameters()) == 2_765_633


def test_weights_start_small_and_biases_do_not():
    torch.manual_seed(0)
    discriminator = PatchDiscriminator(ndf=32)
    convolutions = [module for module in discriminator.modules() if isinstance(module, nn.Conv2d)]
    assert all(0.017 < module.weight.std() < 0.023 for module in convolutions)
    assert all(module.bias is None for module in convolutions[1:-1])
    norms = [module for module in discriminator.modules() if isinstance(module, nn.BatchNorm2d)]
    assert all(abs(module.weight.mean() - 1) < 0.02 and not module.bias.any() for module in norms)


def test_widths_stop_growing_at_eight_times_the_first():
    discriminator = PatchDiscriminator(ndf=4, n_layers=5)
    widths = [module.out_channels for module in discriminator.main if isinstance(module, nn.Conv2d)]
    assert widths == [4, 8, 16, 32, 32, 32, 1]


@pytest.mark.parametrize("arguments", [{"norm": "layer"}, {"ndf": 0}, {"n_layers": 0}])
def test_arguments_that_make_no_sense_are_refused(arguments):
    with pytest.raises(ValueError, match="must be"):
        PatchDiscriminator(**arguments)


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_in_channels_last_the_logits_and_gradients_are_the_same(norm):
    torch.manual_seed(0)
    discriminator = PatchDiscriminator(ndf=8, n_layers=2, norm=norm).double()
    pixels = torch.rand(2, 3, 32, 32, dtype=torch.float64) * 2 - 1

    def results() -> list[torch.Tensor]:
        logits = discriminator(pixels)
        return [logits, *torch.autograd.grad(logits.square().sum(), list(discriminator.parameters()))]

    rows = results()
    discriminator.layout = torch.channels_last
    torch.testing.assert_close(results(), rows)


def test_under_autocast_the_logits_stay_within_bfloat16_of_float32():
    torch.manual_seed(0)
    discriminator, pixels = PatchDiscriminator(ndf=8), torch.rand(2, 3, 64, 64) * 2 - 1
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = discriminator(pixels)
    assert logits.dtype == torch.bfloat16
    wanted = discriminator(pixels)
    assert (logits - wanted).norm() < 0.05 * wanted.norm()
