"""The objective that stages share."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def next_token_loss(logits: Tensor, code_ids: Tensor) -> Tensor:
    """Mean cross-entropy of (B, L, K) logits against the tokens (B, L) they predict, in float32; nats per token."""
    return F.cross_entropy(logits.flatten(0, 1), code_ids.flatten())
