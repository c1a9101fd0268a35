"""Build the loss head of the tokenizer from a configuration, for the two stages that train one."""

from __future__ import annotations

from torch import nn

from gear.assets import find_asset
from gear.config import PerceptualConfig, RunConfig
from gear.losses.discriminator import PatchDiscriminator
from gear.losses.head import LossHead
from gear.losses.lpips import LPIPS, packaged_heads
from harness.contract.errors import MissingAsset, UserError


def build_loss_head(config: RunConfig) -> LossHead:
    """Reconstruction, perceptual and adversarial losses with the discriminator inside.

    Raises UserError where discriminator and images, or the weight of the perceptual loss and its network, do not fit.
    """
    critic = config.discriminator
    if config.data.image_size >> critic.n_layers < 3:
        raise UserError(
            f"discriminator.n_layers is {critic.n_layers}: too many for images of {config.data.image_size} px, which "
            "must be at least 3 pixels after as many halvings."
        )
    if config.perceptual.name == "none" and config.loss.perceptual_weight > 0:
        raise UserError("perceptual.name is none; also set loss.perceptual_weight=0, or name the network lpips.")
    discriminator = PatchDiscriminator(ndf=critic.ndf, n_layers=critic.n_layers, norm=critic.norm)
    return LossHead(config.loss, discriminator, _perceptual(config.perceptual))


def _perceptual(config: PerceptualConfig) -> nn.Module | None:
    if config.name == "none":
        return None
    if config.vgg_weights is None:
        raise MissingAsset(
            "the LPIPS loss needs torchvision's VGG16: name its file with --set perceptual.vgg_weights=PATH, or train "
            "without it: --set perceptual.name=none --set loss.perceptual_weight=0."
        )
    vgg16 = find_asset(config.vgg_weights, purpose="the LPIPS loss", setting="perceptual.vgg_weights")
    if config.lpips_weights is None:
        return LPIPS.from_files(vgg16, packaged_heads())
    heads = find_asset(config.lpips_weights, purpose="the LPIPS loss", setting="perceptual.lpips_weights")
    return LPIPS.from_files(vgg16, heads)
