"""The random numbers of training, as a function of where they are used.

Dropout and stochastic depth draw from PyTorch's global generator. It is seeded again for every micro-batch from (run
seed, update, micro-batch, process), so there is no state to save: a run that resumes after a signal or a kill, or
continues after pictures were drawn, draws the same numbers as an uninterrupted one. With another number of processes
these masks differ; the order of the data, augmentation and dropped conditions do not (`gear.data.order`).
"""

from __future__ import annotations

import numpy as np
import torch

_DROPOUT_STREAM = 3
"""Streams 0 to 2 belong to the order of the data."""


def seed_micro_batch(seed: int, step: int, part: int, rank: int) -> None:
    """Seed PyTorch's generators (CPU, GPU) for micro-batch `part` of update `step`, both from 0, in process `rank`."""
    words = np.random.SeedSequence((seed, _DROPOUT_STREAM, step, part, rank)).generate_state(1, np.uint64)
    torch.manual_seed(int(words[0] >> np.uint64(1)))
