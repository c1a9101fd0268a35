"""Distances from tokens to codes: the input of the arg-min, the soft read-out and the entropy regulariser.

With 16,384 codes the matrix d of a batch would be by far the largest tensor of a tokenizer, and nothing needs all of
it at once. Only its factors are stored; see `posterior.py` for what is computed from them.

Shapes: R rows (one per code id: tokens, or code groups of tokens), K codes, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gear.tokenizers.posterior import Posterior


@dataclass(frozen=True, kw_only=True)
class Distances:
    """d (R, K) between queries and codes: -<q, c>, or |q - c|^2 if `squared`; with the graph of both."""

    queries: Tensor
    """(R, C), the encoder's output as the family compares it, at least float32."""
    codes: Tensor
    """(K, C)."""
    squared: bool = False

    @property
    def num_codes(self) -> int:
        """K."""
        return len(self.codes)

    def matrix(self) -> Tensor:
        """d itself, (R, K): the plain form, for small sizes and for checks."""
        if not self.squared:
            return -(self.queries @ self.codes.T)
        norms = self.queries.square().sum(dim=1, keepdim=True) + self.codes.square().sum(dim=1)
        return torch.addmm(norms, self.queries, self.codes.T, alpha=-2)  # no (R, K, C) tensor appears

    def nearest(self) -> Tensor:
        """The id of the nearest code, (R,) int64, without a gradient."""
        return self.posterior(1.0).likeliest()

    def posterior(self, temperature: float) -> Posterior:
        """softmax(-d / temperature), as its factors.

        |q|^2 is constant along a row and so cancels in the softmax. The codes' |c|^2 becomes one more channel.
        """
        if not self.squared:
            return Posterior(self.queries / temperature, self.codes.T.contiguous())
        ones = torch.ones_like(self.queries[:, :1])
        queries = torch.cat([2.0 * self.queries, ones], dim=1) / temperature
        return Posterior(queries, torch.cat([self.codes.T, -self.codes.square().sum(dim=1)[None]]))
