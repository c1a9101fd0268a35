"""Which reference archive is which, and what may be measured against it.

A generator of ImageNet is compared with the *training* set (gFID), a tokenizer's reconstructions of the validation
images with the *validation* set (rFID). The archives look alike, any of them runs through the evaluator, and the wrong
one gives a plausible number: so the wrong one is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from harness.contract.errors import UserError

Measure = Literal["gfid", "rfid"]
Split = Literal["train", "val", "other"]

NUM_VALIDATION_IMAGES = 50_000
"""Of ImageNet."""


NUM_REFERENCE_IMAGES = 10_000
"""In the public archives, beside statistics of the whole training set."""

KNOWN_SHA256: Mapping[str, Split] = {}
"""Digests of public archives. Nobody publishes them, so the first download is recorded by the asset store and every
later one must be the same; until one is known here, an archive is told by what it holds."""


@dataclass(frozen=True, kw_only=True)
class Reference:
    """What is known of the archive at hand."""

    filename: str
    sha256: str
    count: int
    """Images in `arr_0`."""
    has_statistics: bool
    """Whether it stores `mu` and `sigma` of a whole data set."""

    @property
    def split(self) -> Split:
        """By digest; else by contents. The archives of the training set hold its statistics and 10,000 images, those
        that people make of the validation set hold all its 50,000 images."""
        if self.sha256 in KNOWN_SHA256:
            return KNOWN_SHA256[self.sha256]
        if self.count == NUM_VALIDATION_IMAGES:
            return "val"
        return "train" if self.has_statistics and self.count == NUM_REFERENCE_IMAGES else "other"


def refuse_mixed_up(measure: Measure, reference: Reference) -> None:
    """Raise UserError for rFID against the training set and for gFID against the validation set."""
    if measure == "rfid" and reference.split == "train":
        raise UserError(
            f"{reference.filename}: holds the statistics of ImageNet's training set and {reference.count:,} of its "
            "images; rFID compares with the validation set. Give its images: "
            "--asset adm-imagenet256-reference=FILE   or for gFID leave out --set adm.measure=rfid"
        )
    if measure == "gfid" and reference.split == "val":
        raise UserError(
            f"{reference.filename}: holds {reference.count:,} images, which is ImageNet's validation set; gFID "
            "compares with the training set. Leave out --asset adm-imagenet256-reference, or for reconstructions add: "
            "--set adm.measure=rfid"
        )
