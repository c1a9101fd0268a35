"""Losses of tokenizer training: reconstruction, perceptual (LPIPS), adversarial."""

from gear.losses.discriminator import PatchDiscriminator
from gear.losses.head import LossConfig, LossHead
from gear.losses.lpips import LPIPS

__all__ = ["LPIPS", "LossConfig", "LossHead", "PatchDiscriminator"]
