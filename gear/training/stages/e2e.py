"""Stage `e2e`: GEAR, the end-to-end training of tokenizer and AR model. `gear_step` is the algorithm of the paper.

Shapes: B images of a micro-batch, L tokens of an image, K codes, D width of the AR model, T conditioning slots,
d_i channels of teacher i.
"""

from __future__ import annotations

import torch

from gear.align import Projectors, alignment_loss
from gear.ar.model import ClassConditionalAR
from gear.config import RunConfig
from gear.data.loader import Batch
from gear.losses.head import LossHead
from gear.readout import frozen, hard_codes, soft_codes, straight_through
from gear.teachers import Targets
from gear.tokenizers.base import Tokenizer
from gear.training.ema import EMA
from gear.training.stages.diagnostics import codebook_logs, optimizer_logs, tokenizer_logs
from gear.training.stages.stage import Logs, Stage


class GearStage(Stage):
    """The models that are trained together, their optimizers, and the frozen teachers' targets."""

    phase = "e2e"
    headline = "ce_loss"

    def __init__(
        self,
        config: RunConfig,
        device: torch.device,
        *,
        tokenizer: Tokenizer,
        ar: ClassConditionalAR,
        projectors: Projectors,
        losses: LossHead,
        targets: Targets,
    ) -> None:
        super().__init__(config, device)
        self.tokenizer, self.ar, self.projectors = tokenizer.to(device), ar.to(device), projectors.to(device)
        # The critic's batch norms use batch statistics throughout, so the losses stay in train mode.
        self.losses, self.targets = losses.to(device).train(), targets
        self.modules = {"vq": tokenizer, "ar": ar, **projectors.as_part(), "discriminator": losses.discriminator}
        decay = self.settings.ema_decay
        self.averages = {"vq_ema": EMA(tokenizer, decay), "ema": EMA(ar, decay)}
        self.running = {"lecam": losses}
        self.prepare()
        self.tokenizer_opt = self.optimization("tokenizer", tokenizer)
        self.discriminator_opt = self.optimization("discriminator", losses.discriminator)
        self.ar_opt = self.optimization("ar", ar, projectors)

    def micro_step(self, batch: Batch, *, last: bool, diagnose: bool) -> Logs:
        return gear_step(self, batch, last=last, diagnose=diagnose)


def gear_step(run: GearStage, batch: Batch, *, last: bool = True, diagnose: bool = True) -> Logs:
    """One GEAR iteration: the updates of tokenizer, critic and AR model, with one forward pass of the tokenizer.

    The two losses do not mix: the tokenizer's backward leaves no gradient in the AR model or the projectors, since the
    soft codes are read with both frozen; the AR model's backward leaves none in the tokenizer, since hard codes are
    integers.
    """
    gear, num_images = run.config.gear, len(batch.labels)
    pixels = batch.pixels
    run.tokenizer.train()
    with run.autocast():
        targets = run.targets(batch.images_u8, batch.ids)  # (B, L, d_i) per teacher
        code = run.tokenizer(pixels)
    hard = hard_codes(code.code_ids, num_images)  # (B, L)
    soft = soft_codes(code.distances, num_images, gear.temperature)  # (B, L) distributions over K codes
    if gear.straight_through:
        soft = straight_through(soft, hard)
    codebook = codebook_logs(code, gear.temperature) if diagnose else {}  # before the codebook is updated

    run.ar.eval()
    with frozen(run.ar, run.projectors):
        # 1. Tokenizer: reconstruction, plus the alignment measured inside the frozen AR through the soft codes.
        with run.autocast():
            hidden = run.ar.tap(soft[:, :-1], batch.labels, gear.tap_layer)  # (B, T+L-1, D)
            align_soft = alignment_loss(run.projectors(run.ar.predicting(hidden)), targets)
        generator, generator_logs = run.losses.generator(pixels, code.recon, code.losses, run.step)
        tokenizer_loss = generator + gear.tokenizer_align_coeff * align_soft
        tokenizer_norm = run.tokenizer_opt.step(tokenizer_loss, last_micro_batch=last)

        # 2. Critic: the images against the reconstructions made before the tokenizer's update.
        critic_loss, critic_logs = run.losses.discriminator_loss(pixels, code.recon.detach(), run.step)
        critic_norm = run.discriminator_opt.step(critic_loss, last_micro_batch=last)

    # 3. AR: predict the hard codes, and align the features.
    run.ar.train()
    dropped = batch.dropped(run.ar.label_dropout)  # whose label is hidden, for classifier-free guidance
    with run.autocast():
        ce, hidden = run.ar.next_token_loss(hard, batch.labels, gear.tap_layer, dropped)  # 0-d, (B, T+L-1, D)
        align_hard = alignment_loss(run.projectors(run.ar.predicting(hidden)), targets)
    ar_loss = ce + gear.align_coeff * align_hard
    ar_norm = run.ar_opt.step(ar_loss, last_micro_batch=last)

    logs: Logs = {
        "ar_total": ar_loss.detach(),
        "ce_loss": ce.detach(),
        **({"proj_loss_ar": align_hard.detach()} if targets else {}),
        "vq_total": tokenizer_loss.detach(),
        **({"proj_loss_vq": align_soft.detach()} if targets else {}),
        **tokenizer_logs(generator_logs, critic_logs),
        **optimizer_logs(
            {
                "tokenizer": (run.tokenizer_opt, tokenizer_norm),
                "discriminator": (run.discriminator_opt, critic_norm),
                "ar": (run.ar_opt, ar_norm),
            }
        ),
    }
    return logs | codebook
