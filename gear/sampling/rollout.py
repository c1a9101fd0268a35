"""Image tokens from an AR model, one at a time, with classifier-free guidance.

Shapes: B images, N tokens, K codebook entries; under guidance the model runs on 2B rows, [conditional ; null].
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from gear.ar.model import Trunk
from gear.sampling.draws import Draw
from gear.sampling.filters import filtered_probs, guided
from harness.contract.errors import UserError
from harness.contract.requests import Protocol


@dataclass(frozen=True, kw_only=True)
class SamplingOptions:
    """How tokens are drawn; the fields of a benchmark's protocol that concern the AR."""

    cfg_scale: float = 1.0
    """Guidance scale; 1 and below means no guidance."""
    cfg_interval: float = -1.0
    """Guide image tokens 0 .. this + 1, and no later ones; at or below -1 guides all. Token 0 is always guided."""
    temperature: float = 1.0
    """Logits are divided by it."""
    top_k: int = 0
    """Keep the k likeliest tokens and those tied with the last of them; 0 keeps all."""
    top_p: float = 1.0
    """Keep the likeliest tokens up to this mass; 1 keeps all."""

    @staticmethod
    def of(protocol: Protocol) -> SamplingOptions:
        """The options a benchmark asks for."""
        names = [entry.name for entry in dataclasses.fields(SamplingOptions)]
        return SamplingOptions(**{name: getattr(protocol, name) for name in names})

    @property
    def guides(self) -> bool:
        """Whether the null condition is needed at all."""
        return self.cfg_scale > 1.0

    def guides_token(self, index: int) -> bool:
        """Whether image token `index` is guided."""
        return self.guides and (index == 0 or self.cfg_interval <= -1 or index - 1 <= self.cfg_interval)


@dataclass
class Trace:
    """What a roll-out saw at every step, for checks: lists of (B, K), one entry per image token."""

    logits: list[Tensor] = field(default_factory=list)
    """After guidance, before temperature and filters."""
    probs: list[Tensor] = field(default_factory=list)
    """What the token was drawn from."""


@torch.inference_mode()
def roll_out(
    ar: Trunk,
    condition: Any,
    *,
    num_tokens: int,
    options: SamplingOptions,
    draw: Draw,
    trace: Trace | None = None,
) -> Tensor:
    """Draw `num_tokens` image tokens per condition: ids (B, N) int64, in raster order.

    condition: what the model is conditioned on, labels (B,) for the class-conditional AR. The model is in eval mode.
    Raises UserError when the model's logits are not finite.
    """
    logits, cache = _begin(ar, condition, num_tokens, options)
    finite = torch.ones((), dtype=torch.bool, device=logits.device)
    tokens: list[Tensor] = []
    for index in range(num_tokens):
        if index > 0:
            fed = torch.cat([tokens[-1], tokens[-1]]) if options.guides else tokens[-1]
            logits = ar.decode(fed, ar.num_cond + index - 1, cache)
        combined = _combine(logits, index, options)
        finite &= combined.isfinite().all()
        probs = filtered_probs(combined, options.temperature, options.top_k, options.top_p)
        tokens.append(draw(probs, index))
        if trace is not None:
            trace.logits.append(combined)
            trace.probs.append(probs)
    if not finite:  # the only wait for the device
        raise UserError("the AR model's logits are not finite numbers; its weights are damaged or training diverged.")
    return torch.stack(tokens, dim=1)


def _begin(ar: Trunk, condition: Any, num_tokens: int, options: SamplingOptions) -> tuple[Tensor, Any]:
    """The logits of image token 0, and the cache that now holds the conditioning."""
    condition = ar.with_null(condition) if options.guides else condition
    cache = ar.new_cache(len(condition), num_tokens)
    return ar.prefill(condition, cache), cache


def _combine(logits: Tensor, index: int, options: SamplingOptions) -> Tensor:
    """One row per image. Beyond the interval the null rows still run, so that their cache stays filled."""
    if not options.guides:
        return logits
    return guided(logits, options.cfg_scale) if options.guides_token(index) else logits.chunk(2)[0]
