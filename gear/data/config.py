"""Which data a run trains on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from gear.data import digits
from gear.ranges import Count, Natural
from harness.contract.errors import UserError

Kind = Literal["auto", "digits", "captioned-digits", "image-folder", "captioned-folder", "idx", "gpic", "blip3o"]
DIGITS = ("digits", "captioned-digits")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    kind: Kind = "auto"
    """`auto` looks at data_dir. `image-folder`: DIR/<class>/<image>. `captioned-folder`: images with a text file
    beside each, or a metadata.jsonl. `idx`: MNIST's files. `gpic`, `blip3o`: WebDataset shards (*.tar) with captions in
    JSON or text members. `digits`: the demo's tinted digits, no files needed; `captioned-digits`: the same with
    captions in several phrasings, without the colour-digit pairs that are held out."""
    data_dir: str | None = None
    """Folder of the training data; for shards also one .tar, a pattern, or several of these, comma-separated."""
    data_probs: str = ""
    """Share of each source in an epoch where there are several, e.g. `0.7,0.3`; empty = equal."""
    image_size: Count = 256
    """Side of the square training image in pixels."""
    num_classes: Count = 1000
    """Classes of the data set; the AR model adds one null class for guidance."""
    random_hflip: bool = True
    """Mirror half of the images. Never for digits, which change their meaning."""
    max_bad_samples: Natural = 100
    """Unusable samples are replaced by others and listed in bad_samples.jsonl; more than this many end the run."""
    num_workers: Natural = 4
    """Decoding processes; 0 decodes in the training process."""

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise UserError(f"data.kind is {self.kind!r}; choose one of {', '.join(get_args(Kind))}.")
        if self.kind in DIGITS and (self.image_size, self.num_classes, self.random_hflip) != (
            digits.IMAGE_SIZE,
            digits.NUM_CLASSES,
            False,
        ):
            raise UserError(
                "the digits are 32 px images of 10 classes that must not be mirrored; "
                "set data.image_size=32 data.num_classes=10 data.random_hflip=false."
            )

    @property
    def repeats(self) -> bool:
        """Whether every epoch shows exactly the same images: what is computed from one may be remembered."""
        return self.kind in DIGITS
