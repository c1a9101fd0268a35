"""Checks of a sample set that cost nothing, made before any work: what they find is a bug in the generator.

They read the pixel hashes of the index, no pixel. Type, layout, range and size of the images are checked where a sample
set is made or opened.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from harness.contract.digest import digest_pixels
from harness.contract.errors import BadSamples
from harness.contract.interface import Duplicates
from harness.contract.samples import SampleSet

FLAT_SHARE = 0.01
"""Above this share of flat images a set is refused; an occasional black one is a normal failure of a generator."""


def screen_samples(
    samples: SampleSet, benchmark: str, *, at_least: int, duplicates: Duplicates = "refuse"
) -> list[str]:
    """Refuse what cannot be a set of drawn images; return notes for the record.

    Args:
        samples: opened, pixels unread.
        benchmark: its id, for messages.
        at_least: images that the metrics need.
        duplicates: whether images that occur more than once are refused.
    Raises:
        BadSamples: too few images, all the same, flat ones, or duplicates.
    """
    if len(samples) < at_least:
        raise BadSamples(
            f"{samples.folder}: holds {len(samples)} images, {benchmark} needs at least {at_least}; draw more samples."
        )
    times = Counter(entry.sha256 for entry in samples.entries)
    if len(times) == 1:
        raise BadSamples(
            f"{samples.folder}: all {len(samples):,} images are the same image; look at the generator's seeds and at "
            "its decoder."
        )
    flat = sum(times[digest] for digest in flat_digests(samples.image_size))
    if flat > FLAT_SHARE * len(samples):
        raise BadSamples(
            f"{samples.folder}: {flat:,} of {len(samples):,} images are one flat grey or black; look for NaN in the "
            "generator, and draw them again."
        )
    notes = [f"{flat:,} of {len(samples):,} images are one flat grey or black."] if flat else []
    return notes + _duplicates(samples, times, benchmark, duplicates)


def flat_digests(image_size: int) -> list[str]:
    """The pixel hashes of the 256 flat grey images: what a decoder makes of NaN or of zeros."""
    image_u8 = np.empty((image_size, image_size, 3), np.uint8)
    digests = []
    for level in range(256):
        image_u8.fill(level)
        digests.append(digest_pixels(image_u8))
    return digests


def _duplicates(samples: SampleSet, times: Counter[str], benchmark: str, wanted: Duplicates) -> list[str]:
    surplus = len(samples) - len(times)
    if not surplus:
        return []
    digest = times.most_common(1)[0][0]
    first, second, *_ = (entry.id for entry in samples.entries if entry.sha256 == digest)
    found = f"{surplus:,} of {len(samples):,} images repeat another one to the last pixel ({second} is {first})"
    if wanted == "refuse":
        raise BadSamples(
            f"{samples.folder}: {found}; give every image its own seed. If this is intended: "
            f"--set {benchmark}.duplicates=allow"
        )
    return [f"{found[0].upper()}{found[1:]}."]
