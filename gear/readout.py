"""The two read-outs of a codebook: hard code ids, and soft codes with a gradient.

Quantisation is an arg-min over codes, and an arg-min has no gradient. GEAR therefore reads the same distances d
twice: *hard*, as the index of the nearest code, which is what the AR model learns to predict; and *soft*, as the
posterior softmax(-d / tau), through which an alignment loss measured inside the frozen AR model flows back to the
encoder and the codebook.

The soft read-out is an attention over the codebook: a token's encoder output is the query, the codes are the keys and
the AR model's token embeddings the values. Its weights, (B, L, K) numbers, are never stored.

Shapes: B images, L tokens of an image in raster order, N = B L, K codes, D width of the AR model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gear.numerics import exact_products
from gear.tokenizers.distances import Distances


def hard_codes(code_ids: Tensor, batch_size: int) -> Tensor:
    """The nearest codes as token ids, (N,) -> (B, L) int64. Carries no gradient: indices are integers."""
    return code_ids.view(batch_size, -1)


@dataclass(frozen=True, kw_only=True)
class SoftCodes:
    """Tokens read softly, n for each of B images: distributions over the codebook with the gradient of d."""

    distances: Distances
    """Of B * n rows."""
    batch_size: int
    temperature: float
    hard: Tensor | None = None
    """(B, n) ids: value of the one-hot code, gradient of the posterior (`straight_through`)."""

    def __getitem__(self, key: tuple[slice, slice]) -> SoftCodes:
        """Some of the tokens, indexed like a (B, L) tensor: soft[:, :-1]."""
        queries = self.distances.queries.unflatten(0, (self.batch_size, -1))[key]  # (b, n, C)
        return replace(
            self,
            distances=replace(self.distances, queries=queries.flatten(0, 1)),
            batch_size=len(queries),
            hard=None if self.hard is None else self.hard[key],
        )

    def mix(self, table: Tensor) -> Tensor:
        """The mean of the rows of `table` (K, D) under each token's distribution, (B, n, D).

        In autocast's type where autocast is on. The gradient reaches encoder, codebook and, unless frozen, `table`.
        """
        device_type = table.device.type
        if torch.is_autocast_enabled(device_type):
            table = table.to(torch.get_autocast_dtype(device_type))
        posterior = self.distances.posterior(self.temperature)
        if self.hard is None:
            return posterior.read(table).unflatten(0, (self.batch_size, -1))
        soft = posterior.read(table.detach()).view(*self.hard.shape, -1)
        return F.embedding(self.hard, table) + (soft - soft.detach())

    def probs(self) -> Tensor:
        """The distributions themselves, (B, n, K): the plain form, for small sizes and for checks."""
        soft = self.distances.posterior(self.temperature).probs().unflatten(0, (self.batch_size, -1))
        if self.hard is None:
            return soft
        return soft + (F.one_hot(self.hard, soft.shape[-1]).to(soft.dtype) - soft).detach()


def soft_codes(distances: Distances, batch_size: int, temperature: float) -> SoftCodes:
    """The posterior over codes, softmax(-d / tau), of all B * L tokens."""
    return SoftCodes(distances=distances, batch_size=batch_size, temperature=temperature)


def straight_through(soft: SoftCodes, hard: Tensor) -> SoftCodes:
    """Value of the one-hot code (B, L), gradient of the posterior.

    This is the ablation that collapses in the paper, kept so that it can be reproduced.
    """
    return replace(soft, hard=hard)


@contextmanager
def frozen(*modules: nn.Module) -> Iterator[None]:
    """Inside the block no parameter of `modules` gets a gradient; gradients still flow through to their input."""
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


_TOP = (1, 10, 100, 1000)


@torch.no_grad()
def posterior_statistics(distances: Distances, temperatures: Sequence[float] = (1.0,)) -> list[PosteriorStatistics]:
    """Statistics of softmax(-d / tau) over the rows of d for each tau, in one pass over chunks of d."""
    natural = distances.posterior(1.0)
    num_rows, num_codes = len(distances.queries), distances.num_codes
    entropy = natural.queries.new_zeros(len(temperatures))
    mass = natural.queries.new_zeros(len(temperatures), min(_TOP[-1], num_codes))
    with exact_products(entropy.device):
        for _, logits in natural.logits():
            likeliest = logits.topk(mass.shape[1], dim=-1).indices  # the same codes at every temperature
            for t, temperature in enumerate(temperatures):
                log_probs = (logits / temperature).log_softmax(dim=-1)
                mass[t] += log_probs.gather(1, likeliest).exp().cumsum(-1).sum(0) / num_rows
                entropy[t] -= log_probs.mul_(log_probs.exp()).sum() / num_rows
    return [
        PosteriorStatistics(entropy[t], entropy[t].exp(), {k: mass[t, min(k, num_codes) - 1] for k in _TOP})
        for t in range(len(temperatures))
    ]


def codebook_usage(code_ids: Tensor, num_codes: int) -> Tensor:
    """Share of the codebook that occurs in `code_ids`, a 0-d tensor in (0, 1]."""
    return torch.bincount(code_ids.flatten(), minlength=num_codes).count_nonzero() / num_codes
