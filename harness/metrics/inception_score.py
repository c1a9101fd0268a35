"""Inception Score (Salimans et al. 2016, arXiv:1606.03498) from class probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

ROWS_AT_A_TIME = 512


def class_probabilities(pool: Array, classifier: Array) -> Array:
    """softmax(pool @ classifier) in float32, no bias: (N, D), (D, C) -> (N, C).

    float32 on purpose: a class that underflows to probability 0 makes the published score NaN, and so it does here.
    """
    probabilities = np.empty((len(pool), classifier.shape[1]), dtype=np.float32)
    weights = classifier.astype(np.float32)
    for start in range(0, len(pool), ROWS_AT_A_TIME):
        rows = slice(start, start + ROWS_AT_A_TIME)
        logits = pool[rows].astype(np.float32) @ weights
        logits -= logits.max(axis=1, keepdims=True)
        exponentials = np.exp(logits)
        probabilities[rows] = exponentials / exponentials.sum(axis=1, keepdims=True)
    return probabilities


def inception_score(probabilities: Array, *, split_size: int = 5_000) -> float:
    """Mean over consecutive parts of exp(mean KL(p || mean p)); (N, C) -> at least 1, at most C.

    Parts are `split_size` rows in the given order; a shorter last part counts like a full one. NaN when a probability
    is exactly 0 (0 ln 0 is not taken as 0), as in the ADM evaluator.
    """
    if split_size < 1 or len(probabilities) == 0:
        raise ValueError(
            f"an Inception Score needs images, and parts of 1 or more; got {len(probabilities)} and {split_size}"
        )
    starts = range(0, len(probabilities), split_size)
    return float(np.mean([_part_score(probabilities[start : start + split_size]) for start in starts]))


def _part_score(part: Array) -> float:
    p = part.astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        divergence = p * (np.log(p) - np.log(p.mean(axis=0, keepdims=True)))
    return float(np.exp(divergence.sum(axis=1).mean()))
