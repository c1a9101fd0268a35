"""A text encoder that computes each distinct caption once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor

from gear.ar.t2i import TextCondition
from gear.text.base import TextConfig, TextEncoder

_DEFAULT_BYTES = 1 << 30


class CachingEncoder:
    """For data sets with few captions, and for sampling.

    Captions are encoded one at a time: the last bits of a caption's features must not depend on the other captions of
    its batch. Otherwise a resumed run, which starts with an empty cache, would differ from an uninterrupted one, and an
    image from the same image drawn in another batch.
    """

    def __init__(
        self, encoder: TextEncoder, *, null: TextCondition | None = None, max_bytes: int = _DEFAULT_BYTES
    ) -> None:
        """null: the empty caption as a finished run stored it, used instead of encoding it here.

        max_bytes: memory for features, on the encoder's device; the least recently used captions are dropped.
        """
        self.encoder, self.max_bytes, self._null = encoder, max_bytes, null
        self._known: OrderedDict[str, tuple[Tensor, Tensor]] = OrderedDict()

    @property
    def config(self) -> TextConfig:
        return self.encoder.config

    @property
    def num_cut(self) -> int:
        """Distinct captions that were cut."""
        return self.encoder.num_cut

    def encode(self, captions: Sequence[str]) -> TextCondition:
        rows = [self._row(caption) for caption in captions]
        return TextCondition(
            features=torch.stack([features for features, _ in rows]), mask=torch.stack([mask for _, mask in rows])
        )

    def null(self) -> TextCondition:
        return self.encoder.null() if self._null is None else self._null

    def _row(self, caption: str) -> tuple[Tensor, Tensor]:
        """(T, C) and (T,) of one caption."""
        if caption not in self._known:
            encoded = self.encoder.encode([caption])
            assert encoded.mask is not None
            self._known[caption] = encoded.features[0], encoded.mask[0]
            row_bytes = encoded.features.numel() * encoded.features.element_size()
            while len(self._known) > max(1, self.max_bytes // row_bytes):
                self._known.popitem(last=False)
        self._known.move_to_end(caption)
        return self._known[caption]
