"""The entropy regulariser that every tokenizer family shares.

Each token should choose decisively (low entropy per sample) while the batch as a whole uses the codebook evenly (high
entropy of the mean assignment). Shapes: N tokens, G code groups of a token (1 but for GLFQ), K codes.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from gear.tokenizers.base import EntropyTerms
from gear.tokenizers.distances import Distances

_UNUSED_CODE_EPS = 1e-5
"""Added inside log(mean assignment): a code that no token is near has a mean of 0."""


def entropy_terms(
    distances: Distances,
    *,
    ratio: float,
    temperature: float = 0.01,
    sample_weight: float = 1.0,
    batch_weight: float = 1.0,
    groups: int = 1,
) -> EntropyTerms:
    """Entropies of softmax(-d / temperature), from the distances of N * groups rows; never holds (N, K) numbers.

    In a process group the mean assignment is taken over all processes, so that the averaged gradient equals the one
    of a single process on the whole batch; every process must then call this the same number of times. The gradient
    reaches everything the distances were computed from.
    """
    sample, mean_probs = distances.posterior(temperature).entropy_and_mean(groups)
    average = entropy_of_mean(global_mean(mean_probs))
    return EntropyTerms(total=ratio * (sample_weight * sample - batch_weight * average), sample=sample, average=average)


def plain_entropy_terms(affinities: Tensor, *, ratio: float, temperature: float = 0.01) -> EntropyTerms:
    """The same with unit weights, written out for affinities -d, (N, K) or (N, G, K): to check `entropy_terms`."""
    log_probs = torch.log_softmax(affinities / temperature, dim=-1)
    probs = log_probs.exp()
    sample = -(probs * log_probs).sum(dim=-1).mean()
    average = entropy_of_mean(global_mean(probs.mean(dim=0)))
    return EntropyTerms(total=ratio * (sample - average), sample=sample, average=average)


def entropy_of_mean(mean_probs: Tensor) -> Tensor:
    """Entropy of mean assignments (K,) or (G, K), averaged over the groups; a 0-d tensor, in nats."""
    return -(mean_probs * torch.log(mean_probs + _UNUSED_CODE_EPS)).sum(dim=-1).mean()


def global_mean(local: Tensor) -> Tensor:
    """The mean of `local` over all processes in value; the gradient is that of the local part.

    DDP averages the gradients afterwards, which supplies the missing 1/world_size.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return local
    total = local.detach().clone()
    dist.all_reduce(total)
    return local + (total / dist.get_world_size() - local.detach())
