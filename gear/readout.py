"""One codebook, read twice.

Quantisation is an arg-min over codes, and an arg-min has no gradient. GEAR therefore reads the same distances d
twice: *hard*, as the index of the nearest code, which is what the AR model learns to predict; and *soft*, as the
posterior softmax(-d / tau), through which an alignment loss measured inside the frozen AR model flows back to the
encoder and the codebook.

Shapes: B images, L tokens of an image in raster order, N = B L, K codes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gear.numerics import at_least_float32


def hard_codes(code_ids: Tensor, batch_size: int) -> Tensor:
    """The nearest codes as token ids, (N,) -> (B, L) int64. Carries no gradient: indices are integers."""
    return code_ids.view(batch_size, -1)


def soft_codes(code_distances: Tensor, batch_size: int, temperature: float) -> Tensor:
    """The posterior over codes, softmax(-d / tau): (N, K) -> (B, L, K), with the gradient of d."""
    posterior = F.softmax(-code_distances / temperature, dim=-1)
    return posterior.view(batch_size, -1, posterior.shape[-1])


def straight_through(soft: Tensor, hard: Tensor) -> Tensor:
    """Value of the one-hot code, gradient of the posterior: (B, L, K) and (B, L) -> (B, L, K).

    The ablation of the paper that collapses; here so that it can be repeated.
    """
    one_hot = F.one_hot(hard, soft.shape[-1]).to(soft.dtype)
    return soft + (one_hot - soft).detach()


@contextmanager
def frozen(*modules: nn.Module) -> Iterator[None]:
    """Inside the block no parameter of `modules` asks for a gradient; gradients still flow through to their input."""
    parameters = [parameter for module in modules for parameter in module.parameters()]
    before = [parameter.requires_grad for parameter in parameters]
    try:
        for parameter in parameters:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter, required in zip(parameters, before, strict=True):
            parameter.requires_grad_(required)


@dataclass(frozen=True)
class PosteriorStatistics:
    """How a posterior over codes is spread. All 0-d tensors; entropy in nats."""

    entropy_nats: Tensor
    """Mean over tokens of -sum q log q."""
    effective_size: Tensor
    """exp of the mean entropy: as many equally likely codes would be this uncertain."""
    top_mass: dict[int, Tensor]
    """k -> mean probability mass of the k likeliest codes of a token."""


@torch.no_grad()
def posterior_statistics(code_distances: Tensor, temperature: float = 1.0) -> PosteriorStatistics:
    """Statistics of softmax(-d / tau) over the rows of d (N, K), in float32 or wider."""
    logits = -at_least_float32(code_distances.detach()) / temperature
    log_posterior = F.log_softmax(logits, dim=-1)
    posterior = log_posterior.exp()
    entropy = torch.special.entr(posterior).sum(-1).mean()
    sizes = (1, 10, 100, 1000)
    num_codes = posterior.shape[-1]
    cumulative = posterior.topk(min(sizes[-1], num_codes), dim=-1).values.cumsum(-1)
    top_mass = {k: cumulative[:, min(k, num_codes) - 1].mean() for k in sizes}
    return PosteriorStatistics(entropy, entropy.exp(), top_mass)


def codebook_usage(code_ids: Tensor, num_codes: int) -> Tensor:
    """Share of the codebook that occurs in `code_ids`, a 0-d tensor in (0, 1]."""
    return torch.bincount(code_ids.flatten(), minlength=num_codes).count_nonzero() / num_codes
