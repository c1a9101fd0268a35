"""The text-to-image AR: caption features as a prefix of T slots, and first blocks in which text has its own weights.

What is unlike the class-conditional model:

- the first blocks are double-stream: text slots have their own norm and projections, and attend jointly with the image
  slots; the feed-forward is shared. The remaining blocks treat all slots alike;
- the caption's padding is masked, and text sees text causally or, as a prefix, in both directions;
- there is no learned null condition: the null caption is the text encoder's features of the empty string, whose mask
  is all zeros, so that image tokens then see no text at all.

Shapes: B batch, T text slots, S = T + (image tokens fed), C width of the text encoder, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gear.ar.blocks import Attention, Block, DropPath, Pass, RMSNorm, SwiGLU, repeated
from gear.ar.cache import LayerCache
from gear.ar.config import TextARConfig
from gear.ar.model import Trunk


@dataclass(frozen=True, kw_only=True)
class TextCondition:
    """A batch of captions as the text encoder sees them."""

    features: Tensor
    """(B, T, C), padding included."""
    mask: Tensor | None = None
    """(B, T), non-zero = a real token; None = no caption mask: plain causal attention."""
    null: TextCondition | None = None
    """The empty caption for guidance, one row or B."""

    def __len__(self) -> int:
        return len(self.features)


class CaptionMLP(nn.Module):
    """C -> D -> D with a tanh-approximated GELU; bias-free."""

    def __init__(self, caption_dim: int, dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(caption_dim, dim, bias=False)
        self.fc2 = nn.Linear(dim, dim, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(features), approximate="tanh"))


class CaptionEmbedding(nn.Module):
    """Caption features (B, T, C) to T slots (B, T, D)."""

    def __init__(self, caption_dim: int, dim: int) -> None:
        super().__init__()
        self.cap_proj = CaptionMLP(caption_dim, dim)

    def forward(self, features: Tensor) -> Tensor:
        return self.cap_proj(features.to(self.cap_proj.fc1.weight.dtype))


def by_stream(x: Tensor, num_text: int, text: Callable[[Tensor], Tensor], image: Callable[[Tensor], Tensor]) -> Tensor:
    """`text` of the first `num_text` slots of x (B, S, ...), `image` of the others."""
    if num_text == 0:
        return image(x)
    if num_text == x.shape[1]:
        return text(x)
    return torch.cat([text(x[:, :num_text]), image(x[:, num_text:])], dim=1)


class DoubleStreamAttention(Attention):
    """One attention over all slots, with separate projections for text slots."""

    def __init__(self, config: TextARConfig) -> None:
        super().__init__(config)
        self.wqkv_text = nn.Linear(self.wqkv.in_features, self.wqkv.out_features, bias=False)
        self.wo_text = nn.Linear(config.dim, config.dim, bias=False)

    def project_in(self, x: Tensor, this: Pass) -> Tensor:
        return by_stream(x, this.num_cond, self.wqkv_text, self.wqkv)

    def project_out(self, mixed: Tensor, this: Pass) -> Tensor:
        return by_stream(mixed, this.num_cond, self.wo_text, self.wo)


class DoubleStreamBlock(nn.Module):
    """Like `Block`, with a separate attention norm and separate attention projections for text slots."""

    def __init__(self, config: TextARConfig, layer: int) -> None:
        super().__init__()
        # Registration order is that of the reference: optimizer states number parameters by it.
        self.attention = DoubleStreamAttention(config)
        self.feed_forward = SwiGLU(config)
        self.attention_norm = RMSNorm(config.dim, config.norm_eps)
        self.attention_norm_text = RMSNorm(config.dim, config.norm_eps)
        self.ffn_norm = RMSNorm(config.dim, config.norm_eps)
        self.drop_path = DropPath(config.drop_path_of(layer))

    def forward(self, x: Tensor, this: Pass, cache: LayerCache | None = None) -> Tensor:
        """The residual stream (B, S, D) before and after this block."""
        normed = by_stream(x, this.num_cond, self.attention_norm_text, self.attention_norm)
        mixed = self.drop_path(self.attention(normed, this, cache))
        x = repeated(x, mixed.shape[0]) + mixed
        return x + self.drop_path(self.feed_forward(self.ffn_norm(x)))

    @torch.no_grad()
    def copy_image_stream_to_text(self) -> None:
        """Warm start: text begins with the image's projections and norm."""
        self.attention.wqkv_text.weight.copy_(self.attention.wqkv.weight)
        self.attention.wo_text.weight.copy_(self.attention.wo.weight)
        self.attention_norm_text.weight.copy_(self.attention_norm.weight)


class TextToImageAR(Trunk):
    """Image tokens given a caption (t2i). The condition of every method is a `TextCondition`."""

    config: TextARConfig

    def __init__(self, config: TextARConfig, *, activation_checkpointing: bool = False) -> None:
        num_double = config.num_double_stream
        super().__init__(
            config,
            CaptionEmbedding(config.caption_dim, config.dim),
            [
                *(DoubleStreamBlock(config, layer) for layer in range(num_double)),
                *(Block(config, layer) for layer in range(num_double, config.n_layer)),
            ],
            activation_checkpointing=activation_checkpointing,
        )

    def copy_image_stream_to_text(self) -> None:
        """Warm start of the text stream, for a model whose image stream was loaded from elsewhere."""
        for block in self.layers:
            if isinstance(block, DoubleStreamBlock):
                block.copy_image_stream_to_text()

    def embed_condition(self, condition: TextCondition, drop_ids: Tensor | None = None) -> Tensor:
        if drop_ids is not None:
            raise ValueError(
                "drop_ids is not for captions; to drop one, give the features and mask of the empty string"
            )
        if condition.features.shape[1:] != (self.num_cond, self.config.caption_dim):
            raise ValueError(
                f"caption features of shape {tuple(condition.features.shape)} do not fill {self.num_cond} slots "
                f"of width {self.config.caption_dim}"
            )
        return self.cls_embedding(condition.features)

    def rows(self, condition: TextCondition) -> Iterator[tuple[int, TextCondition]]:
        """Captions are not compared with each other: every row has its own key."""
        for row in range(len(condition)):
            mask = None if condition.mask is None else condition.mask[row : row + 1]
            yield row, TextCondition(features=condition.features[row : row + 1], mask=mask)

    def with_null(self, condition: TextCondition) -> TextCondition:
        null = condition.null
        if null is None:
            raise ValueError("guidance needs the features of the empty caption; give them as the condition's null")
        rows = len(condition)
        # Both halves need a mask, or none is used: a missing mask does not say which slots are padding.
        masks = (condition.mask, null.mask)
        return TextCondition(
            features=_stacked(condition.features, null.features, rows),
            mask=None if masks[0] is None or masks[1] is None else _stacked(masks[0], masks[1], rows),
        )

    def attention_mask(self, condition: TextCondition, num_slots: int) -> Tensor | None:
        """Lower triangle, text columns only where there is text, and the diagonal; (B, 1, S, S), True = may attend.

        As a prefix, text sees all text. Without a caption mask attention is plain causal, also in prefix mode.
        """
        if condition.mask is None:
            return None
        num_text = self.num_cond
        seen = torch.ones(num_slots, num_slots, dtype=torch.bool, device=condition.mask.device).tril()
        if self.config.text_attn == "prefix":
            seen[:num_text, :num_text] = True
        seen = seen & self._text_columns(condition.mask, num_slots)
        # Each slot sees itself, so that a padded text slot is not left with nothing to attend to.
        return seen | torch.eye(num_slots, dtype=torch.bool, device=seen.device)

    def visible_slots(self, condition: TextCondition, num_slots: int) -> Tensor | None:
        return None if condition.mask is None else self._text_columns(condition.mask, num_slots)

    def _text_columns(self, mask: Tensor, num_slots: int) -> Tensor:
        """(B, 1, 1, S): the caption mask, and True for image slots."""
        return F.pad(mask.bool(), (0, num_slots - self.num_cond), value=True)[:, None, None, :]


def _stacked(rows: Tensor, null: Tensor, count: int) -> Tensor:
    """[rows ; null], null being one row or as many."""
    return torch.cat([rows, null.to(rows.dtype).expand(count, *null.shape[1:])])
