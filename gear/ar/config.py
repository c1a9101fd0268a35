"""Configuration of the autoregressive models, and the registered LlamaGen sizes."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from gear.ranges import Count, Positive


@dataclass(frozen=True, kw_only=True)
class TrunkConfig:
    """What every AR shares, whatever it is conditioned on. Field names follow the released checkpoints' configs."""

    dim: int
    """Model width D; divisible by `n_head`, and the head width D / n_head by 4 (two axes, pairs of channels)."""
    n_layer: int
    """Number of transformer blocks."""
    n_head: int
    """Query heads H."""
    n_kv_head: Count | None = None
    """Key/value heads; None = as many as query heads (every released model)."""
    multiple_of: Count = 256
    """The hidden width of the feed-forward is rounded up to a multiple of this."""
    ffn_dim_multiplier: Positive | None = None
    """Extra factor on the hidden width of the feed-forward, before rounding up."""
    norm_eps: Positive = 1e-5
    """Added to the mean square inside RMSNorm."""
    rope_base: Positive = 10_000.0
    """Base of the rotary frequencies."""
    vocab_size: int = 16_384
    """Codebook size K."""
    block_size: int = 256
    """Image tokens L; a square, since tokens form a grid."""
    cls_token_num: int = 1
    """Conditioning slots T in front of the image tokens."""
    token_dropout_p: float = 0.1
    """Dropout on the embedded sequence, conditioning slots included."""
    attn_dropout_p: float = 0.0
    """Dropout on the attention weights."""
    resid_dropout_p: float = 0.1
    """Dropout after the attention's output projection."""
    ffn_dropout_p: float = 0.1
    """Dropout after the feed-forward."""
    drop_path_rate: float = 0.0
    """Stochastic depth of the last block; grows linearly from 0 at the first."""
    init_std: Positive = 0.02
    """Standard deviation of the initial Linear and Embedding weights."""

    def __post_init__(self) -> None:
        if min(self.dim, self.n_layer, self.n_head, self.vocab_size, self.block_size, self.cls_token_num) < 1:
            raise ValueError("dim, n_layer, n_head, vocab_size, block_size and cls_token_num have to be at least 1")
        if self.dim % self.n_head or self.head_dim % 4:
            raise ValueError(
                f"dim {self.dim} over {self.n_head} heads: dim has to be divisible by n_head, and the head width by 4"
            )
        if self.n_head % self.num_kv_heads:
            raise ValueError(f"n_head {self.n_head} has to be a multiple of n_kv_head {self.n_kv_head}")
        if self.grid_side**2 != self.block_size:
            raise ValueError(f"block_size {self.block_size} is not a square; it counts the cells of the token grid")
        for name in ("token_dropout_p", "attn_dropout_p", "resid_dropout_p", "ffn_dropout_p", "drop_path_rate"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"{name} is {getattr(self, name)}; a dropout probability lies in [0, 1)")

    @property
    def head_dim(self) -> int:
        """Width h of one head."""
        return self.dim // self.n_head

    @property
    def num_kv_heads(self) -> int:
        """Key/value heads, resolved."""
        return self.n_head if self.n_kv_head is None else self.n_kv_head

    @property
    def ffn_dim(self) -> int:
        """Hidden width of the SwiGLU feed-forward: two thirds of 4D, rounded up to `multiple_of`."""
        hidden = int(2 * (4 * self.dim) / 3)
        if self.ffn_dim_multiplier is not None:
            hidden = int(self.ffn_dim_multiplier * hidden)
        return self.multiple_of * math.ceil(hidden / self.multiple_of)

    @property
    def grid_side(self) -> int:
        """Side of the square token grid."""
        return math.isqrt(self.block_size)

    @property
    def max_sequence(self) -> int:
        """Slots of conditioning and image tokens together, T + L."""
        return self.cls_token_num + self.block_size

    def drop_path_of(self, layer: int) -> float:
        """Stochastic depth rate of a block (0-based)."""
        return self.drop_path_rate * layer / (self.n_layer - 1) if self.n_layer > 1 else 0.0


@dataclass(frozen=True, kw_only=True)
class ARConfig(TrunkConfig):
    """The class-conditional AR."""

    num_classes: int = 1000
    """Classes; the null class of classifier-free guidance has the index `num_classes`."""
    class_dropout_prob: float = 0.1
    """Probability of replacing a training label by the null class; 0 leaves the null class out of the table."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_classes < 1:
            raise ValueError(f"num_classes is {self.num_classes}; a class-conditional model needs at least one class")
        if self.cls_token_num != 1:
            raise ValueError(f"cls_token_num is {self.cls_token_num}; a class label fills exactly one slot")
        if not 0.0 <= self.class_dropout_prob <= 1.0:
            raise ValueError(f"class_dropout_prob is {self.class_dropout_prob}; a probability lies in [0, 1]")


TextAttention = Literal["causal", "prefix"]


@dataclass(frozen=True, kw_only=True)
class TextARConfig(TrunkConfig):
    """The text-to-image AR: a prefix of caption features instead of a class label."""

    cls_token_num: int = 300
    """Text slots T; captions are padded or cut to this length."""
    caption_dim: int = 1024
    """Width of the text encoder's features."""
    n_double_stream_layers: int = -1
    """First blocks in which text has projections and a norm of its own; -1 = a third of the blocks, at least one."""
    text_attn: TextAttention = "causal"
    """How text attends to text: to earlier slots only, or (prefix) to all of it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.caption_dim < 1:
            raise ValueError(f"caption_dim is {self.caption_dim}; it is the width of the text encoder's features")
        if self.n_double_stream_layers < -1:
            raise ValueError(f"n_double_stream_layers is {self.n_double_stream_layers}; -1 chooses, 0 means none")
        if self.text_attn not in get_args(TextAttention):
            raise ValueError(f"text_attn {self.text_attn!r} is not one of {', '.join(get_args(TextAttention))}")

    @property
    def num_double_stream(self) -> int:
        """Double-stream blocks, resolved."""
        if self.n_double_stream_layers == -1:
            return max(1, round(self.n_layer / 3))
        return min(self.n_double_stream_layers, self.n_layer)


AR_SIZES: Mapping[str, Mapping[str, int]] = {
    "LlamaGen-S": {"n_layer": 12, "n_head": 12, "dim": 384},
    "LlamaGen-B": {"n_layer": 12, "n_head": 12, "dim": 768},
    "LlamaGen-L": {"n_layer": 24, "n_head": 16, "dim": 1024},
    "LlamaGen-XL": {"n_layer": 36, "n_head": 20, "dim": 1280},
    "LlamaGen-XXL": {"n_layer": 48, "n_head": 24, "dim": 1536},
    "LlamaGen-XXXL": {"n_layer": 48, "n_head": 40, "dim": 2560},
    # Published by LlamaGen (c2i_3B_384) and not used by GEAR: here so that its weights can be sampled.
    "LlamaGen-3B": {"n_layer": 24, "n_head": 32, "dim": 3200},
}
"""Class-conditional sizes by name."""


TEXT_AR_SIZES: Mapping[str, Mapping[str, int]] = {
    **{name: size for name, size in AR_SIZES.items() if name != "LlamaGen-3B"},
    "LlamaGen-1B": {"n_layer": 36, "n_head": 20, "dim": 1440},
}
"""Text-to-image sizes by name."""


def ar_size(name: str, *, text: bool) -> dict[str, int]:
    """The fields that a registered size sets. Raises ValueError, naming near misses, for an unknown name."""
    if text:
        return dict(_size(name, TEXT_AR_SIZES, "text-to-image"))
    return dict(_size(name, AR_SIZES, "class-conditional"))


def ar_config(name: str, **overrides: Any) -> ARConfig:
    """The class-conditional configuration of a registered size; keyword arguments replace single fields.

    Raises ValueError, naming near misses, for an unknown name.
    """
    return ARConfig(**{**ar_size(name, text=False), **overrides})


def text_ar_config(name: str, **overrides: Any) -> TextARConfig:
    """The text-to-image configuration of a registered size; keyword arguments replace single fields.

    Raises ValueError, naming near misses, for an unknown name.
    """
    return TextARConfig(**{**ar_size(name, text=True), **overrides})


def _size(name: str, sizes: Mapping[str, Mapping[str, int]], kind: str) -> Mapping[str, int]:
    if name not in sizes:
        near = difflib.get_close_matches(name, sizes, n=1, cutoff=0.3)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"no {kind} AR model named {name!r}{hint} (there are {', '.join(sizes)})")
    return sizes[name]
