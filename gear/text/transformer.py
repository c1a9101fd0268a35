"""Text encoders of the transformers library: the last hidden states of a frozen language model.

Shapes: B captions, T text slots, C width of the features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gear.ar.t2i import TextCondition
from gear.text.base import MAX_CHARACTERS, TextConfig
from harness.contract.errors import UserError


class TransformerTextEncoder:
    """The last layer's states after the final norm, of all T positions, padding included.

    There is no chat template, and the only special tokens are those that the encoder's own tokenizer adds: none for
    Qwen, so that its empty caption has an all-zero mask; [CLS] and [SEP] for MiniLM.
    """

    def __init__(self, config: TextConfig, model: Any, tokenizer: Any) -> None:
        """model, tokenizer: of the transformers library. Of a vision-language model only the language tower is used."""
        self.config = config
        self.model = getattr(model, "language_model", model).eval().requires_grad_(False)
        self.tokenizer = tokenizer
        # The mask and the image tokens' position after the text assume it; some tokenizers default to the left.
        self.tokenizer.padding_side = "right"
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.num_cut = 0
        width = self.model.config.hidden_size
        if width != config.feature_dim:
            raise UserError(
                f"the text encoder gives {width} channels but text.dim is {config.feature_dim}; "
                f"name the encoder that the model was trained with, or train with --set text.dim={width}."
            )

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def encode(self, captions: Sequence[str]) -> TextCondition:
        ids, mask = self._tokens(captions)
        return TextCondition(features=self._features(ids, mask), mask=mask.bool())

    def null(self) -> TextCondition:
        return self.encode([""])

    def _tokens(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Token ids and mask, (B, T) int64 on the device; captions that do not fit are cut and counted."""
        length = self.config.max_length
        kept = [caption[:MAX_CHARACTERS] for caption in captions]
        tokens = self.tokenizer(kept, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        full = tokens["attention_mask"].sum(dim=1) == length
        for position, caption in enumerate(captions):
            # A row without padding may fit exactly, so only such rows are tokenized once more, in full.
            whole = len(caption) <= MAX_CHARACTERS
            fits = whole and (not full[position] or len(self.tokenizer(caption)["input_ids"]) <= length)
            self.num_cut += not fits
        return tokens["input_ids"].to(self.device), tokens["attention_mask"].to(self.device)

    @torch.no_grad()
    def _features(self, ids: Tensor, mask: Tensor) -> Tensor:
        """(B, T, C) of the model's floating type."""
        features: Tensor = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
        return features
