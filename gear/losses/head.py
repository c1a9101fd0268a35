"""The losses of tokenizer training in one place: reconstruction, perceptual, quantiser, adversarial.

The tokenizer minimises   w_rec rec + w_perc LPIPS + w_quant quantiser - w_disc F_t mean D(recon),
the discriminator         F_t hinge + LeCam,
where F_t is discriminator_factor from step discriminator_start on and 0 before. In float32 at least.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gear.numerics import at_least_float32
from gear.ranges import Fraction, Natural, Weight
from gear.tokenizers import QuantizerLosses
from gear.tokenizers.entropy import global_mean

Logs = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """The recipe GEAR uses for every tokenizer family. Each weight multiplies the term in its name."""

    reconstruction_loss: Literal["l1", "l2"] = "l1"
    """Mean absolute or mean squared difference over all elements of [-1, 1] images."""
    reconstruction_weight: Weight = 1.0
    perceptual_weight: Weight = 1.0
    """Weight of LPIPS; at 0 the perceptual network is not run."""
    discriminator_start: Natural = 0
    """First step with the adversarial loss on; steps count finished updates, from 0."""
    discriminator_factor: Weight = 1.0
    """F: scales the generator's adversarial loss and the discriminator's hinge loss once started."""
    discriminator_weight: Weight = 0.1
    """Constant weight of the generator's adversarial loss; at 0 that pass of the discriminator is not run."""
    lecam_regularization_weight: Weight = 0.0
    """Weight of LeCam (arXiv:2104.03310), which keeps the discriminator's logits near their running means; 0 is off."""
    lecam_ema_decay: Fraction = 0.999
    """Decay per discriminator step of those running means."""
    quantizer_weight: Weight = 1.0
    entropy_weight: Weight = 1.0
    """Multiplies the entropy term on top of the tokenizer's entropy_loss_ratio."""


class LossHead(nn.Module):
    """Discriminator and perceptual network, and the two losses made of them.

    `perceptual` maps two images in [-1, 1] to a distance per image. Keep the head in training mode for the whole run:
    the discriminator's batch statistics are per batch, never running ones.
    """

    ema_real_logits_mean: Tensor
    ema_fake_logits_mean: Tensor

    def __init__(self, config: LossConfig, discriminator: nn.Module, perceptual: nn.Module | None) -> None:
        super().__init__()
        if perceptual is None and config.perceptual_weight > 0:
            raise ValueError(
                f"perceptual_weight is {config.perceptual_weight}, but there is no perceptual network; "
                "give the LPIPS weights, or set perceptual_weight to 0"
            )
        self.config = config
        self.discriminator = discriminator
        self.perceptual = perceptual.requires_grad_(False) if perceptual is not None else None
        if config.lecam_regularization_weight > 0:
            self.register_buffer("ema_real_logits_mean", torch.zeros(1))
            self.register_buffer("ema_fake_logits_mean", torch.zeros(1))

    def forward(self, pixels: Tensor, recon: Tensor, step: int) -> tuple[Tensor, Logs]:
        return self.discriminator_loss(pixels, recon, step)

    def generator(
        self, pixels: Tensor, recon: Tensor, quantizer_losses: QuantizerLosses, step: int
    ) -> tuple[Tensor, Logs]:
        """The tokenizer's loss, a 0-d tensor, and its parts; leaves no gradient in the discriminator."""
        config = self.config
        pixels, recon = at_least_float32(pixels), at_least_float32(recon)
        with torch.autocast(pixels.device.type, enabled=False):
            reconstruction = config.reconstruction_weight * self._reconstruction(pixels, recon)
            perceptual = config.perceptual_weight * self._perceptual(pixels, recon)
            factor = self._factor(step)
            adversarial = self._adversarial(recon, factor)
            weighted_adversarial = config.discriminator_weight * factor * adversarial
            zero = pixels.new_zeros(())
            quantizer = config.quantizer_weight * (zero + quantizer_losses.total(config.entropy_weight))
            total = reconstruction + perceptual + quantizer + weighted_adversarial

        entropy = quantizer_losses.entropy
        logs = {
            "total_loss": total,
            "reconstruction_loss": reconstruction,
            "perceptual_loss": perceptual,
            "quantizer_loss": quantizer,
            "vq_loss": zero if quantizer_losses.vq is None else quantizer_losses.vq,
            "commit_loss": zero if quantizer_losses.commit is None else quantizer_losses.commit,
            "entropy_loss": zero if entropy is None else entropy.total,
            "sample_entropy": zero if entropy is None else entropy.sample,
            "avg_entropy": zero if entropy is None else entropy.average,
            "weighted_gan_loss": weighted_adversarial,
            "gan_loss": adversarial,
            "discriminator_factor": zero + factor,
            "d_weight": zero + config.discriminator_weight,
        }
        return total, {name: value.detach() for name, value in logs.items()}

    def discriminator_loss(self, pixels: Tensor, recon: Tensor, step: int) -> tuple[Tensor, Logs]:
        """The discriminator's loss, a 0-d tensor, and its parts; `recon` is detached here.

        Before discriminator_start the loss is exactly zero but still has a graph and both passes are run, so batch
        statistics and the optimiser's state advance from the first step.
        """
        pixels, recon = at_least_float32(pixels), at_least_float32(recon.detach())
        self.discriminator.requires_grad_(True)
        with torch.autocast(pixels.device.type, enabled=False):
            real = self.discriminator(pixels)  # two passes, so that batch statistics never mix real and fake
            fake = self.discriminator(recon)
            hinge = 0.5 * (F.relu(1.0 - real).mean() + F.relu(1.0 + fake).mean())
            lecam = self._lecam(global_mean(real.mean()), global_mean(fake.mean()))
            loss = self._factor(step) * hinge + lecam
        logs = {
            "discriminator_loss": loss,
            "logits_real": real.mean(),
            "logits_fake": fake.mean(),
            "lecam_loss": lecam,
        }
        return loss, {name: value.detach() for name, value in logs.items()}

    def _factor(self, step: int) -> float:
        return self.config.discriminator_factor if step >= self.config.discriminator_start else 0.0

    def _reconstruction(self, pixels: Tensor, recon: Tensor) -> Tensor:
        return (F.l1_loss if self.config.reconstruction_loss == "l1" else F.mse_loss)(recon, pixels)

    def _perceptual(self, pixels: Tensor, recon: Tensor) -> Tensor:
        if self.perceptual is None or self.config.perceptual_weight == 0:
            return pixels.new_zeros(())
        return self.perceptual.eval()(pixels, recon).mean()

    def _adversarial(self, recon: Tensor, factor: float) -> Tensor:
        if factor == 0 or self.config.discriminator_weight == 0:
            return recon.new_zeros(())
        # The discriminator's gradients are not cleared between the two losses, so this pass must not add to them: it
        # is frozen until its own loss is computed.
        self.discriminator.requires_grad_(False)
        return -self.discriminator(recon).mean()

    def _lecam(self, real: Tensor, fake: Tensor) -> Tensor:
        """The penalty against the running means of earlier steps, which are then updated."""
        weight, decay = self.config.lecam_regularization_weight, self.config.lecam_ema_decay
        if weight == 0:
            return real.new_zeros(())
        above = F.relu(real - self.ema_fake_logits_mean).square()
        below = F.relu(self.ema_real_logits_mean - fake).square()
        penalty = weight * (above + below).mean()
        # New tensors, not in-place: the graph of this step still reads the old means.
        self.ema_real_logits_mean = decay * self.ema_real_logits_mean + (1 - decay) * real.detach()
        self.ema_fake_logits_mean = decay * self.ema_fake_logits_mean + (1 - decay) * fake.detach()
        return penalty
