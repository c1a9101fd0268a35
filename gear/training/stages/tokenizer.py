"""Stage `tokenizer`: reconstruction, perceptual and adversarial losses, and nothing else (the warm-up of GEAR)."""

from __future__ import annotations

import torch

from gear.config import RunConfig
from gear.data.loader import Batch
from gear.losses.head import LossHead
from gear.tokenizers.base import Tokenizer
from gear.training.ema import EMA
from gear.training.stages.diagnostics import codebook_logs, optimizer_logs, tokenizer_logs
from gear.training.stages.stage import Logs, Stage


class TokenizerStage(Stage):
    """A tokenizer and its critic."""

    phase = "tokenizer"
    headline = "reconstruction_loss"

    def __init__(self, config: RunConfig, device: torch.device, *, tokenizer: Tokenizer, losses: LossHead) -> None:
        super().__init__(config, device)
        self.tokenizer, self.losses = tokenizer.to(device), losses.to(device).train()
        self.modules = {"vq": tokenizer, "discriminator": losses.discriminator}
        self.averages = {"vq_ema": EMA(tokenizer, self.settings.ema_decay)}
        self.running = {"lecam": losses}
        self.prepare()
        self.tokenizer_opt = self.optimization("tokenizer", tokenizer)
        self.discriminator_opt = self.optimization("discriminator", losses.discriminator)

    def micro_step(self, batch: Batch, *, last: bool, diagnose: bool) -> Logs:
        return tokenizer_step(self, batch, last=last, diagnose=diagnose)


def tokenizer_step(run: TokenizerStage, batch: Batch, *, last: bool = True, diagnose: bool = True) -> Logs:
    """One iteration: the tokenizer, then its critic on the reconstructions made before the tokenizer's update."""
    pixels = batch.pixels
    run.tokenizer.train()
    with run.autocast():
        code = run.tokenizer(pixels)
    codebook = codebook_logs(code) if diagnose else {}  # before the codebook is updated

    tokenizer_loss, generator_logs = run.losses.generator(pixels, code.recon, code.losses, run.step)
    tokenizer_norm = run.tokenizer_opt.step(tokenizer_loss, last_micro_batch=last)

    critic_loss, critic_logs = run.losses.discriminator_loss(pixels, code.recon.detach(), run.step)
    critic_norm = run.discriminator_opt.step(critic_loss, last_micro_batch=last)

    logs: Logs = {
        "vq_total": tokenizer_loss.detach(),
        **tokenizer_logs(generator_logs, critic_logs),
        **optimizer_logs(
            {
                "tokenizer": (run.tokenizer_opt, tokenizer_norm),
                "discriminator": (run.discriminator_opt, critic_norm),
            }
        ),
    }
    return logs | codebook
