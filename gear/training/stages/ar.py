"""Stage `ar`: the AR model on a frozen tokenizer.

With the tokenizer and the AR model of stage `e2e` this is the second half of GEAR; with a file of stage `tokenizer` and
a fresh AR model it is the LlamaGen-REPA baseline.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gear.align import Projectors, alignment_loss
from gear.ar.model import ClassConditionalAR, Trunk
from gear.config import RunConfig
from gear.data.loader import Batch
from gear.readout import hard_codes
from gear.teachers import Targets
from gear.tokenizers.base import Tokenizer
from gear.training.ema import EMA
from gear.training.stages.diagnostics import optimizer_logs, usage_logs
from gear.training.stages.stage import Logs, Stage


class ARStage(Stage):
    """An AR model with its projectors, learning the tokens of a frozen tokenizer."""

    phase = "ar"
    headline = "ce_loss"

    def __init__(
        self,
        config: RunConfig,
        device: torch.device,
        *,
        tokenizer: Tokenizer,
        ar: Trunk,
        projectors: Projectors,
        targets: Targets,
    ) -> None:
        super().__init__(config, device)
        self.tokenizer = tokenizer.to(device).eval().requires_grad_(False)
        self.ar, self.projectors, self.targets = ar.to(device), projectors.to(device), targets
        # The frozen tokenizer is stored in the checkpoint, so that one file is enough to sample from.
        self.modules = {"vq": tokenizer, "ar": ar, **projectors.as_part()}
        self.averages = {"ema": EMA(ar, self.settings.ema_decay)}
        self.prepare()
        self.ar_opt = self.optimization("ar", ar, projectors)

    def condition(self, batch: Batch) -> Any:
        """What the AR model is conditioned on."""
        return batch.labels

    def dropped(self, batch: Batch) -> Tensor | None:
        """(B,) bool: whose label is hidden, for classifier-free guidance; None where `condition` hides it."""
        return batch.dropped(self.ar.label_dropout) if isinstance(self.ar, ClassConditionalAR) else None

    def micro_step(self, batch: Batch, *, last: bool, diagnose: bool) -> Logs:
        return ar_step(self, batch, last=last, diagnose=diagnose)


def ar_step(run: ARStage, batch: Batch, *, last: bool = True, diagnose: bool = True) -> Logs:
    """One iteration: next-token prediction over the tokenizer's codes plus alignment with the teacher."""
    gear = run.config.gear
    with run.autocast():
        targets = run.targets(batch.images_u8, batch.ids)  # (B, L, d_i) per teacher
    with torch.no_grad():
        code_ids = hard_codes(run.tokenizer.encode(batch.pixels).code_ids, len(batch.labels))  # (B, L)

    run.ar.train()
    with run.autocast():
        ce, hidden = run.ar.next_token_loss(code_ids, run.condition(batch), gear.tap_layer, run.dropped(batch))
        align = alignment_loss(run.projectors(run.ar.predicting(hidden)), targets)
    loss = ce + gear.align_coeff * align
    norm = run.ar_opt.step(loss, last_micro_batch=last)

    logs: Logs = {
        "ar_total": loss.detach(),
        "ce_loss": ce.detach(),
        **({"proj_loss_ar": align.detach()} if targets else {}),
        **optimizer_logs({"ar": (run.ar_opt, norm)}),
    }
    return logs | (usage_logs(code_ids, run.tokenizer.config.num_codes) if diagnose else {})
