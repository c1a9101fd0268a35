"""CLIPScore from embeddings: how well images agree with their captions (Hessel et al. 2021, arXiv:2104.08718)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def cosines(image_embeds: Array, text_embeds: Array) -> Array:
    """(n, D) and (n, D) -> (n,) float64, row by row."""
    image, text = image_embeds.astype(np.float64), text_embeds.astype(np.float64)
    products = np.einsum("nd,nd->n", image, text)
    result: Array = products / (np.linalg.norm(image, axis=1) * np.linalg.norm(text, axis=1))
    return result


def clip_score(cosines: Array) -> float:
    """100 times the mean cosine: not clamped at 0, no factor 2.5."""
    return 100.0 * float(np.mean(cosines))
