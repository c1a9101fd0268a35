"""Softmax over a codebook, without the (tokens x codes) matrices.

The posterior of a token over the codes is softmax(query . keys). Everything computed from it (a mixture of vectors, an
entropy, the mean over tokens) is small, so rows are processed in chunks and each chunk is recomputed in the backward
pass, as in FlashAttention (arXiv:2205.14135). A fused attention kernel itself cannot be used: at the temperatures in
use the logits need true float32, and the vectors that are read are wider than the kernels' heads.

Shapes: R rows (tokens, or code groups of tokens), K codes, C channels, D width of the vectors that are read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from gear.numerics import exact_products, row_chunks


@dataclass(frozen=True)
class Posterior:
    """softmax(queries @ keys) over the last dimension, held as its factors."""

    queries: Tensor
    """(R, C), at least float32."""
    keys: Tensor
    """(C, K), one column per code: this layout is several times faster than its transpose where C is small."""

    def probs(self) -> Tensor:
        """The posterior itself, (R, K), with its graph: the plain form, for small sizes and for checks."""
        with exact_products(self.queries.device):
            return torch.softmax(self.queries @ self.keys, dim=-1)

    @torch.no_grad()
    def likeliest(self) -> Tensor:
        """The code with the largest probability, (R,) int64; the first one where several are equal (on a CPU)."""
        with exact_products(self.queries.device):
            return torch.cat([logits.argmax(dim=-1) for _, logits in self.logits()])

    def read(self, values: Tensor) -> Tensor:
        """Attention over the codebook: probs() @ values, (K, D) -> (R, D) in the dtype of `values`.

        Gradients reach queries, keys and values.
        """
        mixture: Tensor = _Read.apply(self.queries, self.keys, values)
        return mixture

    def entropy_and_mean(self, groups: int = 1) -> tuple[Tensor, Tensor]:
        """Mean entropy of a row in nats (0-d), and the mean posterior over tokens (groups, K), with gradients.

        groups: consecutive rows that make up a token; each has its own mean.
        """
        entropy, mean = _EntropyAndMean.apply(self.queries, self.keys, groups)
        return entropy, mean

    def logits(self, groups: int = 1) -> Iterator[tuple[slice, Tensor]]:
        """Slices of rows and their logits (r, K). Call it inside `exact_products`: autocast is not handled here."""
        for rows in row_chunks(len(self.queries), self.keys.shape[1], self.queries.device, multiple=groups):
            yield rows, self.queries[rows] @ self.keys


class _Gradients:
    """Accumulates the gradients of queries and keys from those of the logits, chunk by chunk."""

    def __init__(self, posterior: Posterior) -> None:
        self.posterior = posterior
        self.queries, self.keys = torch.empty_like(posterior.queries), torch.zeros_like(posterior.keys)

    def add(self, rows: slice, of_probs: Tensor, probs: Tensor) -> None:
        """of_probs, probs: (r, K), the gradient of the posterior and the posterior."""
        of_logits = torch._softmax_backward_data(of_probs, probs, -1, probs.dtype)
        self.queries[rows] = of_logits @ self.posterior.keys.T
        self.keys.addmm_(self.posterior.queries[rows].T, of_logits)


class _Read(torch.autograd.Function):
    """probs @ values; the backward pass recomputes the posterior."""

    @staticmethod
    def forward(ctx: Any, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        ctx.save_for_backward(queries, keys, values)
        mixture = values.new_empty(len(queries), values.shape[1])
        with exact_products(queries.device):
            for rows, logits in Posterior(queries, keys).logits():
                mixture[rows] = logits.softmax(dim=-1).to(values.dtype) @ values
        return mixture

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        queries, keys, values = ctx.saved_tensors
        posterior = Posterior(queries, keys)
        gradients = _Gradients(posterior)
        of_values = torch.zeros_like(values) if ctx.needs_input_grad[2] else None
        with exact_products(queries.device):
            for rows, logits in posterior.logits():
                probs = logits.softmax(dim=-1)
                gradients.add(rows, (grad[rows] @ values.T).to(probs.dtype), probs)
                if of_values is not None:
                    of_values.addmm_(probs.T.to(values.dtype), grad[rows])
        return gradients.queries, gradients.keys, of_values


class _EntropyAndMean(torch.autograd.Function):
    """Mean row entropy and mean posterior; the backward pass recomputes the posterior.

    The mean is returned, so that a mean over processes, and its entropy, remain plain differentiable arithmetic on
    (groups, K) numbers.
    """

    @staticmethod
    def forward(ctx: Any, queries: Tensor, keys: Tensor, groups: int) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(queries, keys)
        ctx.groups = groups
        num_codes = keys.shape[1]
        entropy, total = queries.new_zeros(()), queries.new_zeros(groups, num_codes)
        with exact_products(queries.device):
            for _, logits in Posterior(queries, keys).logits(groups):
                log_probs = logits.log_softmax(dim=-1)
                probs = log_probs.exp()
                total += probs.view(-1, groups, num_codes).sum(dim=0)
                entropy -= log_probs.mul_(probs).sum()
        return entropy / len(queries), total * (groups / len(queries))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_entropy: Tensor, grad_mean: Tensor) -> tuple[Tensor, Tensor, None]:
        queries, keys = ctx.saved_tensors
        posterior, groups, num_rows = Posterior(queries, keys), ctx.groups, len(queries)
        gradients = _Gradients(posterior)
        of_mean = grad_mean * (groups / num_rows)
        with exact_products(queries.device):
            for rows, logits in posterior.logits(groups):
                log_probs = logits.log_softmax(dim=-1)
                probs = log_probs.exp()
                # d(-p log p)/dp = -(log p + 1); the constant cancels in a softmax's gradient.
                of_probs = log_probs.mul_(-grad_entropy / num_rows).view(-1, groups, keys.shape[1]).add_(of_mean)
                gradients.add(rows, of_probs.view_as(probs), probs)
        return gradients.queries, gradients.keys, None
