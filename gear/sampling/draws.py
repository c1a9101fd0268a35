"""Drawing one token per image, so that an image depends on its own seed and on nothing else.

Every image has its own random stream: uniform number t of the stream decides image token t. Batch size, order,
process count and interruptions therefore do not change the tokens.

Shapes: B images, N tokens, K codebook entries.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Draw = Callable[[Tensor, Tensor], Tensor]
"""(probabilities (B, K), index of the image token (1,) int64 on the same device) -> ids (B,) int64."""


def uniforms(seeds: Sequence[int], count: int) -> npt.NDArray[np.float64]:
    """(B, count) float64 in [0, 1): the first numbers of the streams of 64-bit `seeds`.

    Philox keyed by the seed, upper 53 bits of each word. NumPy guarantees the raw words, unlike its
    distributions, to stay the same in every release.
    """
    words = np.stack([np.random.Philox(key=seed).random_raw(count) for seed in seeds])
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53


def inverse_cdf(probs: Tensor, u: Tensor) -> Tensor:
    """The first id (B,) whose cumulative probability exceeds u * total; probs (B, K), u (B,) float64 in [0, 1).

    Summed in float64, because a float32 sum over 16,384 entries is off by more than the smallest probabilities. An id
    of probability zero is never drawn, also where u * total rounds up to the total.
    """
    cumulative = probs.double().cumsum(dim=-1)
    total = cumulative[:, -1:]
    threshold = torch.minimum(u[:, None] * total, torch.nextafter(total, torch.zeros_like(total)))
    ids = torch.searchsorted(cumulative, threshold, right=True)[:, 0]
    # Only a NaN leads out of range here: keep the id usable, the roll-out reports the NaN.
    return ids.clamp_(max=probs.shape[-1] - 1)


class PerImageDraw:
    """Draws from each image's own stream."""

    def __init__(self, seeds: Sequence[int], num_tokens: int, device: torch.device | str = "cpu") -> None:
        """The numbers for all tokens go to the device at once, so that no step waits for the host."""
        self._uniforms = torch.from_numpy(uniforms(seeds, num_tokens)).to(device)  # (B, N)

    def reseed(self, seeds: Sequence[int]) -> None:
        """As many new streams, in the same memory: a recorded step draws from them when it is replayed."""
        self._uniforms.copy_(torch.from_numpy(uniforms(seeds, self._uniforms.shape[1])))

    def __call__(self, probs: Tensor, index: Tensor) -> Tensor:
        return inverse_cdf(probs, self._uniforms.index_select(1, index)[:, 0])


def multinomial(probs: Tensor, index: Tensor) -> Tensor:
    """Draw from PyTorch's global generator, one call per token for the whole batch, as the reference does."""
    return torch.multinomial(probs, 1)[:, 0]


def most_likely(probs: Tensor, index: Tensor) -> Tensor:
    """No randomness: the arg-max."""
    return probs.argmax(dim=-1)
