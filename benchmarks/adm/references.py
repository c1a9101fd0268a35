"""Determines the ImageNet split of a reference archive, and what may be measured against it.

A generator of ImageNet is compared with the *training* set (gFID), a tokenizer's reconstructions of the validation
images with the *validation* set (rFID). The archives look alike, any of them runs through the evaluator, and the wrong
one gives a plausible number: so the wrong one is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from benchmarks.adm.interface import Measure, ReferenceSplit, SamplesAre, Split
from harness.contract.errors import BadSamples, UserError
from harness.contract.samples import SampleSet

NUM_VALIDATION_IMAGES = 50_000
"""Images in ImageNet's validation set; an archive of nearly as many counts as one, too."""
NUM_REFERENCE_IMAGES = 10_000
"""Images in the public archives, with the statistics of the whole training set."""

SAY_SPLIT = "If the archive is a different one, state its split: --set adm.reference_split=train|val|other"
ADOPT_ANEW = "adopt the images again: python -m harness.contract adopt ... --kind"


@dataclass(frozen=True, kw_only=True)
class Reference:
    """What is known about the given archive."""

    name: str
    """The file, for messages."""
    sha256: str
    count: int
    """Images in `arr_0`; 0 where it holds statistics only."""
    has_statistics: bool
    """Whether it stores `mu` and `sigma` of a whole data set."""
    has_spatial: bool = True
    """Whether sFID can be computed: `mu_s` and `sigma_s` are stored, or there is nothing stored but images."""
    image_size: tuple[int, int] | None = None
    """(H, W) of its images."""
    said: ReferenceSplit = "auto"
    """The split that the user states; "auto": determine it."""
    known: Mapping[str, Split] = field(default_factory=dict)
    """sha256 -> split, the option `references`."""

    @property
    def split(self) -> Split:
        """As the user states; else by digest; else by contents. Archives of the training set hold its statistics and
        10,000 images, the usual ones of the validation set hold its 50,000 images."""
        if self.said != "auto":
            return self.said
        if self.sha256 in self.known:
            return self.known[self.sha256]
        if abs(self.count - NUM_VALIDATION_IMAGES) <= 0.01 * NUM_VALIDATION_IMAGES:
            return "val"
        return "train" if self.has_statistics and self.count == NUM_REFERENCE_IMAGES else "other"

    @property
    def contents(self) -> str:
        """What it holds, for messages."""
        return f"{self.count:,} images" if self.count else "statistics only"

    @property
    def notes(self) -> list[str]:
        """Sentences for the record: what cannot be computed, and an unknown split."""
        found = []
        if not self.count:
            what = "both distances are" if self.has_spatial else "gFID is"
            found.append(
                f"The reference archive holds statistics only, so {what} all that is computed; the other metrics are "
                "computed with an archive that has images."
            )
        elif not self.has_spatial:
            found.append("The reference archive has mu and sigma without mu_s and sigma_s, so there is no sFID.")
        if self.said == "auto" and self.sha256 not in self.known and self.split == "other":
            found.append(
                f"The split of the reference archive ({self.contents}) is unknown, so a mix-up of training "
                "and validation set would go unnoticed; state it: --set adm.reference_split=train|val|other"
            )
        return found


def refuse_mixed_up(measure: Measure, reference: Reference) -> None:
    """Raise UserError for rFID against the training set and for gFID against the validation set."""
    what = f"{reference.name}: holds {reference.contents}"
    if measure == "rfid" and reference.split == "train":
        raise UserError(
            f"{what} and is taken for ImageNet's training set; rFID compares with the validation set. Give its images: "
            "--asset adm-imagenet256-reference=FILE   or for gFID leave out --set adm.measure=rfid   "
            f"{SAY_SPLIT}"
        )
    if measure == "gfid" and reference.split == "val":
        raise UserError(
            f"{what} and is taken for ImageNet's validation set; gFID compares with the training set. Leave out "
            "--asset adm-imagenet256-reference, or for reconstructions add: --set adm.measure=rfid   "
            f"{SAY_SPLIT}"
        )


def refuse_other_kind(measure: Measure, samples: SampleSet, said: SamplesAre) -> None:
    """Raise BadSamples for gFID of reconstructions and for rFID of drawn images, where their kind is known.

    Raises UserError when the user's statement contradicts the sample set's record.
    """
    if samples.kind is not None and said not in ("auto", samples.kind):
        raise UserError(
            f"{samples.folder}: is recorded as {samples.kind}, which contradicts --set adm.samples_are={said}. Leave "
            f"out the option, or if the record is wrong, {ADOPT_ANEW} {said}"
        )
    kind = kind_of(samples) if said == "auto" else said
    if measure == "gfid" and kind == "reconstructions":
        raise BadSamples(
            f"{samples.folder}: holds reconstructions of a tokenizer; gFID is for drawn images. Measure their rFID: "
            "--set adm.measure=rfid, with the validation images as reference, or: harness score recon"
        )
    if measure == "rfid" and kind == "generated":
        say_so = "state it: --set adm.samples_are=" if samples.kind is None else ADOPT_ANEW + " "
        raise BadSamples(
            f"{samples.folder}: holds drawn images; rFID is for reconstructions. Leave out --set adm.measure=rfid, or "
            f"if they are reconstructions, {say_so}reconstructions"
        )


def kind_of(samples: SampleSet) -> SamplesAre:
    """As the set records it; else images with requests count as drawn; else "auto": unknown."""
    return samples.kind or ("auto" if samples.request_digest is None else "generated")


def kind_notes(samples: SampleSet, said: SamplesAre) -> list[str]:
    """A sentence for the record where the kind of the images is unknown."""
    if said != "auto" or kind_of(samples) != "auto":
        return []
    return [
        "It is unknown whether these images are drawn or reconstructions, so a mix-up of gFID and rFID goes unnoticed; "
        "state it: --set adm.samples_are=generated|reconstructions"
    ]
