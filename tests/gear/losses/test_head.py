"""The loss head: which term reaches what, and when the adversarial losses start."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from gear.losses import LossConfig, LossHead, PatchDiscriminator
from gear.tokenizers import EntropyTerms, QuantizerLosses
from harness.contract.errors import UserError
from harness.contract.fields import build


class SquaredDifference(nn.Module):
    """A perceptual distance with a closed form: (B, 3, H, W) twice -> (B, 1, 1, 1)."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return (x - y).square().mean(dim=(1, 2, 3), keepdim=True)


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(2, 3, 32, 32, generator=generator) * 2 - 1
    return pixels, (pixels + 0.1 * torch.randn(pixels.shape, generator=generator)).requires_grad_()


def head(**fields) -> LossHead:
    torch.manual_seed(0)
    return LossHead(LossConfig(**fields), PatchDiscriminator(ndf=4), SquaredDifference()).train()


def quantizer_losses() -> QuantizerLosses:
    entropy = EntropyTerms(total=torch.tensor(0.3), sample=torch.tensor(1.0), average=torch.tensor(2.0))
    return QuantizerLosses(vq=torch.tensor(0.5), commit=torch.tensor(0.25), entropy=entropy)


def test_the_total_is_the_weighted_sum_of_its_parts(images):
    losses = head(
        reconstruction_weight=2.0, perceptual_weight=3.0, quantizer_weight=0.5, entropy_weight=0.1,
        discriminator_weight=0.2, discriminator_factor=0.7,
    )  # fmt: skip
    pixels, recon = images
    total, logs = losses.generator(pixels, recon, quantizer_losses(), step=0)
    adversarial = -losses.discriminator(recon).mean()
    wanted = (
        2.0 * (pixels - recon).abs().mean()
        + 3.0 * (pixels - recon).square().mean()
        + 0.5 * (0.5 + 0.25 + 0.1 * 0.3)
        + 0.2 * 0.7 * adversarial
    )
    torch.testing.assert_close(total, wanted)
    assert logs["entropy_loss"].item() == pytest.approx(0.3)
    assert not any(value.requires_grad for value in logs.values())


def test_l2_is_the_mean_squared_difference(images):
    pixels, recon = images
    _, logs = head(reconstruction_loss="l2").generator(pixels, recon, QuantizerLosses(), step=0)
    torch.testing.assert_close(logs["reconstruction_loss"], (pixels - recon).square().mean().detach())


def test_absent_quantizer_losses_count_as_zero(images):
    _, logs = head().generator(*images, QuantizerLosses(), step=0)
    zero = ("quantizer_loss", "vq_loss", "commit_loss", "entropy_loss", "sample_entropy", "avg_entropy")
    assert all(logs[name].item() == 0 for name in zero)


def test_the_generator_pass_leaves_no_gradient_in_the_discriminator(images):
    losses = head()
    losses.generator(*images, QuantizerLosses(), step=0)[0].backward()
    assert images[1].grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in losses.parameters())
    losses.discriminator_loss(*images, step=0)[0].backward()
    assert all(parameter.grad is not None for parameter in losses.discriminator.parameters())


def test_the_discriminator_pass_leaves_no_gradient_in_the_reconstruction(images):
    head().discriminator_loss(*images, step=0)[0].backward()
    assert images[1].grad is None


def test_the_modules_forward_is_the_discriminators_loss(images):
    assert torch.equal(head()(*images, 0)[0], head().discriminator_loss(*images, 0)[0])


def test_before_the_adversarial_start_the_loss_is_zero_and_batch_statistics_are_updated(images):
    losses = head(discriminator_start=10)
    _, logs = losses.generator(*images, QuantizerLosses(), step=9)
    assert logs["weighted_gan_loss"].item() == 0 and logs["discriminator_factor"].item() == 0
    norm = losses.discriminator.main[3]
    assert norm.num_batches_tracked == 0, "the generator pass needs no discriminator yet"
    loss, _ = losses.discriminator_loss(*images, step=9)
    loss.backward()
    assert loss.item() == 0 and norm.num_batches_tracked == 2
    assert all(not parameter.grad.any() for parameter in losses.discriminator.parameters())
    assert losses.discriminator_loss(*images, step=10)[0].item() > 0


def test_real_and_reconstructed_images_never_share_batch_statistics(images):
    losses = head()
    _, logs = losses.discriminator_loss(*images, step=0)
    torch.testing.assert_close(logs["logits_real"], losses.discriminator(images[0]).mean().detach())
    torch.testing.assert_close(logs["logits_fake"], losses.discriminator(images[1]).mean().detach())


def test_lecam_pulls_towards_the_means_of_earlier_steps(images):
    losses = head(lecam_regularization_weight=2.0, lecam_ema_decay=0.9)
    _, first = losses.discriminator_loss(*images, step=0)
    real, fake = first["logits_real"], first["logits_fake"]
    torch.testing.assert_close(first["lecam_loss"], 2.0 * (real.relu().square() + (-fake).relu().square()))
    torch.testing.assert_close(losses.ema_real_logits_mean, 0.1 * real.view(1))
    torch.testing.assert_close(losses.ema_fake_logits_mean, 0.1 * fake.view(1))
    losses.discriminator_loss(*images, step=1)[0].backward()


def test_without_lecam_there_is_nothing_to_save():
    assert "ema_real_logits_mean" not in head().state_dict()
    assert "ema_real_logits_mean" in head(lecam_regularization_weight=1.0).state_dict()


def test_losses_are_float32_inside_autocast(images):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        total, _ = head().generator(images[0], images[1].bfloat16(), QuantizerLosses(), step=0)
        loss, _ = head().discriminator_loss(images[0], images[1].bfloat16(), step=0)
    assert total.dtype == loss.dtype == torch.float32


def test_a_perceptual_weight_needs_a_perceptual_network():
    with pytest.raises(ValueError, match="set perceptual_weight to 0"):
        LossHead(LossConfig(), PatchDiscriminator(ndf=4), None)
    LossHead(LossConfig(perceptual_weight=0), PatchDiscriminator(ndf=4), None)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"reconstruction_loss": "l3"}, "one of l1, l2"),
        ({"discriminator_weight": -0.1}, r"loss\.discriminator_weight must be a number of at least 0"),
        ({"lecam_ema_decay": 1.0}, "lecam_ema_decay"),
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused_in_the_users_words(fields, message):
    with pytest.raises(UserError, match=message):
        build(LossConfig, fields, "the configuration", path="loss")
