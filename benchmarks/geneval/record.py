"""What a reader of GenEval's numbers must know: the notes of its record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

FULL_COUNT = 553 * 4
_OPENING = "a photo of "
"""Of every prompt of `geneval`, and of none of `geneval_long`."""


def notes(benchmark: str, judged: Sequence[Mapping[str, Any]], files: Mapping[str, Path], count: int) -> list[str]:
    """What is unlike the published protocol, or makes the numbers meaningless.

    Args:
        benchmark: `geneval` or `geneval_long`.
        judged: images with a verdict.
        files: the scorer's assets.
        count: of images that went in.
    """
    found = []
    strange = [row for row in judged if row["prompt"].startswith(_OPENING) != (benchmark == "geneval")]
    if strange:
        found.append(
            f"{len(strange):,} images have prompts that are not those of {benchmark}, such as "
            f"{strange[0]['prompt'][:60]!r}: geneval's begin with {_OPENING!r}, geneval_long's do not."
        )
    if count != FULL_COUNT:
        found.append(
            f"Computed from {count:,} images; published numbers use {FULL_COUNT:,}: 553 prompts, 4 images each."
        )
    if not any(row["details"] for row in judged):
        found.append("No object was found in any image: look at the images, and at the weights of the detector.")
    found += [
        f"{name} has random weights: the numbers mean nothing."
        for name, path in files.items()
        if path.suffix == ".json"
    ]
    return found
