"""From logits to the distribution a token is drawn from: guidance, temperature, top-k, top-p.

Shapes: B samples, K codebook entries.
"""

from __future__ import annotations

import torch
from torch import Tensor

_MIN_TEMPERATURE = 1e-5


def guided(outputs: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance: (2B, D) = [conditional ; null] -> null + scale * (conditional - null), (B, D).

    outputs: logits, or anything that they are a linear function of. Computed in float32 at least.
    """
    conditional, null = outputs.to(torch.promote_types(outputs.dtype, torch.float32)).chunk(2)
    return (null + scale * (conditional - null)).to(outputs.dtype)


def filtered_probs(logits: Tensor, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0) -> Tensor:
    """Probabilities (B, K) after temperature, then top-k, then top-p.

    top_k: 0 keeps all; every token tied with the k-th best survives, so more than k may remain.
    top_p: 1 keeps all; otherwise tokens are kept from the likeliest on until their mass exceeds p, the token that
        crosses p included. The mass is that of the tokens left by top-k; the likeliest token always survives.
    """
    if temperature != 1.0:
        logits = logits / max(temperature, _MIN_TEMPERATURE)
    if top_k > 0:
        logits = _keep_top_k(logits, top_k)
    if top_p < 1.0:
        logits = _keep_top_p(logits, top_p)
    return logits.softmax(dim=-1)


def _keep_top_k(logits: Tensor, top_k: int) -> Tensor:
    kth_best = logits.topk(min(top_k, logits.shape[-1])).values[:, -1:]
    return logits.masked_fill(logits < kth_best, -torch.inf)


def _keep_top_p(logits: Tensor, top_p: float) -> Tensor:
    ordered, order = logits.sort(dim=-1, descending=True)
    mass = ordered.softmax(dim=-1).cumsum(dim=-1)
    removed = torch.zeros_like(logits, dtype=torch.bool)
    removed[:, 1:] = mass[:, :-1] > top_p
    return logits.masked_fill(torch.zeros_like(removed).scatter(1, order, removed), -torch.inf)
