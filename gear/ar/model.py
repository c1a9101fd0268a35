"""The autoregressive transformer over image tokens: a trunk, and its class-conditional form.

What is unlike the textbook decoder:

- positions are rotary over the 2-D token grid, and conditioning slots have zeroed queries and keys (`rope.py`);
- tokens come hard (ids) or soft (distributions over the codebook, differentiable): both read one embedding table;
- the training loss is computed without the logits of a whole batch (`cross_entropy.py`);
- in training a label is randomly replaced by the null class, for classifier-free guidance;
- the residual stream can be tapped after any block; `tap` runs the blocks only up to there.

Shapes: B batch, T conditioning slots, L image tokens, S = T + (tokens fed), K codebook, D width. Slot T - 1 + k is the
one that predicts image token k; it has seen the tokens before k.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Iterator
from itertools import islice
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gear.ar.blocks import Block, Pass, RMSNorm
from gear.ar.cache import KVCache
from gear.ar.config import ARConfig, TrunkConfig
from gear.ar.cross_entropy import linear_cross_entropy
from gear.ar.rope import rotary_table


class SoftTokens(Protocol):
    """Tokens (B, n) that are each a distribution over the codebook, in any representation."""

    def mix(self, table: Tensor, /) -> Tensor:
        """The mean of the rows of `table` (K, D) under each token's distribution, (B, n, D) with its gradient."""


Tokens = Tensor | SoftTokens
"""Ids (B, n), distributions (B, n, K), or soft tokens of n positions."""


class Trunk(nn.Module, ABC):
    """Everything but the conditioning: token embedding, blocks, final norm, output head.

    A subclass defines what a condition is (`embed_condition`), and may supply its own blocks and attention mask.
    """

    config: TrunkConfig

    def __init__(
        self,
        config: TrunkConfig,
        cls_embedding: nn.Module,
        blocks: Iterable[nn.Module],
        *,
        activation_checkpointing: bool = False,
    ) -> None:
        """`activation_checkpointing` recomputes each block in the backward pass instead of keeping its activations."""
        super().__init__()
        self.config = config
        self.num_cond = config.cls_token_num
        self.activation_checkpointing = activation_checkpointing
        # Registration order is that of the released models: optimizer states number parameters by it.
        self.cls_embedding = cls_embedding
        self.tok_embeddings = nn.Embedding(config.vocab_size, config.dim)
        self.tok_dropout = nn.Dropout(config.token_dropout_p)
        self.layers = nn.ModuleList(blocks)
        self.norm = RMSNorm(config.dim, config.norm_eps)
        self.output = nn.Linear(config.dim, config.vocab_size, bias=False)
        self._place_rotary_table()
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Normal weights, unit norms, and a zero output head: the first cross-entropy is exactly ln K."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=self.config.init_std)
            elif isinstance(module, RMSNorm):
                nn.init.ones_(module.weight)
        nn.init.zeros_(self.output.weight)

    # -- the rotary table: a plain attribute that follows the model's device, not its dtype; not in the state dict --

    def _place_rotary_table(self) -> None:
        config = self.config
        table = rotary_table(config.grid_side, config.head_dim, config.cls_token_num, config.rope_base)
        self.rotary_table = table.to(self.output.weight.device)  # (T + L, h/2, 2) float32

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        applied = super()._apply(fn, recurse)
        if self.rotary_table.device != self.output.weight.device:
            # Recomputed, not copied: the table of a model built on the meta device holds no numbers.
            self._place_rotary_table()
        return applied

    # -- what a subclass defines --

    @abstractmethod
    def embed_condition(self, condition: Any, drop_ids: Tensor | None = None) -> Tensor:
        """The condition of each sample as T slots (B, T, D)."""

    @abstractmethod
    def rows(self, condition: Any) -> Iterator[tuple[Hashable, Any]]:
        """Each sample's condition as a batch of one, with a key that equal conditions share."""

    @abstractmethod
    def with_null(self, condition: Any) -> Any:
        """[condition ; null condition], 2B rows: the two halves of classifier-free guidance."""

    def attention_mask(self, condition: Any, num_slots: int) -> Tensor | None:
        """Mask of a full pass over S slots, (B, 1, S, S), True = may attend; None = causal."""
        return None

    def visible_slots(self, condition: Any, num_slots: int) -> Tensor | None:
        """Slots that image tokens may see in cached decoding, bool (B, 1, 1, num_slots); None = all before them."""
        return None

    # -- full sequences: training, and the frozen pass of the tokenizer's update --

    def forward(
        self, tokens: Tokens, condition: Any, *, tap_layer: int | None = None, drop_ids: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Next-token logits for a whole sequence, and the residual stream after block `tap_layer` (1-based).

        tokens: image tokens 0 .. n-1 (n <= L - 1 in training), hard or soft.
        drop_ids: (B,), non-zero = use the null condition; overrides the random draw, also in eval mode.
        Returns logits float32 (B, n + 1, K) in training mode, from the slot that predicts image token 0 on, and for all
        T + n slots in eval mode; and the tap (B, T + n, D), never sliced, or None.
        """
        x, hidden = self._run(tokens, condition, tap_layer, drop_ids)
        logits = self.logits_of(self.norm(x))
        return (logits[:, self.num_cond - 1 :] if self.training else logits), hidden

    def next_token_loss(
        self, code_ids: Tensor, condition: Any, tap_layer: int, drop_ids: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Mean cross-entropy of each image token of ids (B, L) given those before it, and the tap of `forward`.

        In nats, 0-d, at least float32. The same as from the logits of `forward`, but only a chunk of them exists at a
        time.
        """
        x, hidden = self._run(code_ids[:, :-1], condition, tap_layer, drop_ids)
        assert hidden is not None
        read = self.norm(self.predicting(x))  # (B, L, D)
        return linear_cross_entropy(read.flatten(0, 1), self.output.weight, code_ids.flatten()), hidden

    def _run(
        self, tokens: Tokens, condition: Any, tap_layer: int | None, drop_ids: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """The residual stream (B, T + n, D) after the last block, and after block `tap_layer` if one is given."""
        wanted = self._checked(tap_layer)
        hidden: Tensor | None = None
        x, this = self._enter(tokens, condition, drop_ids)
        for layer, block in enumerate(self.layers, start=1):
            x = self._through(block, x, this)
            if layer == wanted:
                hidden = x
        return x, hidden

    def tap(self, tokens: Tokens, condition: Any, tap_layer: int, drop_ids: Tensor | None = None) -> Tensor:
        """The residual stream (B, T + n, D) right after block `tap_layer` (1-based); later blocks are not run."""
        x, this = self._enter(tokens, condition, drop_ids)
        for block in islice(self.layers, self._checked(tap_layer)):
            x = self._through(block, x, this)
        return x

    def predicting(self, hidden: Tensor) -> Tensor:
        """The slots (B, n + 1, D) of a tap that predict image tokens 0 .. n: what alignment reads."""
        return hidden[:, self.num_cond - 1 :]

    def embed_tokens(self, tokens: Tokens) -> Tensor:
        """(B, n, D) from ids (B, n), or from distributions over the codebook with their gradient.

        Raises ValueError for a tensor of another rank.
        """
        if not isinstance(tokens, Tensor):
            return tokens.mix(self.tok_embeddings.weight)
        if tokens.ndim == 2 and not tokens.is_floating_point():
            return self.tok_embeddings(tokens)
        if tokens.ndim == 3 and tokens.is_floating_point():
            return tokens.to(self.tok_embeddings.weight.dtype) @ self.tok_embeddings.weight
        raise ValueError(
            f"tokens are ids (B, n) or a distribution (B, n, K), not {tokens.dtype} of shape {tuple(tokens.shape)}"
        )

    def _enter(self, tokens: Tokens, condition: Any, drop_ids: Tensor | None) -> tuple[Tensor, Pass]:
        """The embedded sequence (B, S, D) that the first block reads, and what all blocks share."""
        embedded = self.embed_tokens(tokens)
        x = torch.cat([self.embed_condition(condition, drop_ids).to(embedded.dtype), embedded], dim=1)
        num_slots = x.shape[1]
        if num_slots > self.config.max_sequence:
            raise ValueError(f"{embedded.shape[1]} tokens, but the model takes at most {self.config.block_size}")
        this = Pass(
            rotary=self.rotary_table[:num_slots],
            num_cond=self.num_cond,
            mask=self.attention_mask(condition, num_slots),
        )
        return self.tok_dropout(x), this

    def _through(self, block: nn.Module, x: Tensor, this: Pass) -> Tensor:
        if self.activation_checkpointing and torch.is_grad_enabled():
            return checkpoint(block, x, this, use_reentrant=False)
        return block(x, this)

    def _checked(self, tap_layer: int | None) -> int | None:
        if tap_layer is not None and not 1 <= tap_layer <= len(self.layers):
            raise ValueError(f"tap layer {tap_layer} is not one of this model's blocks 1 to {len(self.layers)}")
        return tap_layer

    def logits_of(self, normed: Tensor) -> Tensor:
        """The output head: output of the final norm (..., D) -> logits (..., K), at least float32. Linear, no bias."""
        logits = self.output(normed)
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    # -- token by token --

    def new_cache(self, batch_size: int, num_tokens: int | None = None) -> KVCache:
        """An empty cache for `num_tokens` image tokens (default L) behind the conditioning slots."""
        weight = self.tok_embeddings.weight
        tokens = self.config.block_size if num_tokens is None else num_tokens
        length = self.num_cond + tokens
        return KVCache.allocate(self.config, batch_size, length, device=weight.device, dtype=weight.dtype)

    def prefill(self, condition: Any, cache: KVCache) -> Tensor:
        """Fill the conditioning slots. Returns the input of `logits_of` for image token 0, (B, D).

        Eval mode only; the same holds for `decode`.
        """
        x = self.embed_condition(condition).to(self.tok_embeddings.weight.dtype)
        self._check_room(x.shape[0], slot=0, count=self.num_cond, cache=cache)
        cache.visible = self.visible_slots(condition, cache.length)
        this = Pass(
            rotary=self.rotary_table[: self.num_cond],
            slots=slice(0, self.num_cond),
            length=self.num_cond,
            num_cond=self.num_cond,
            mask=self.attention_mask(condition, self.num_cond),
        )
        return self._cached(x, this, cache)

    def decode(self, tokens: Tensor, slot: int | Tensor, cache: KVCache, length: int | None = None) -> Tensor:
        """Feed one image token per sample (B,) at `slot` (T + k for image token k).

        slot: a number: all slots up to it are attended to. Or an int64 tensor (1,) on the model's device, with
            `length`, the number of slots that are read; those after `slot` are then masked out, so that a step
            recorded once can be replayed for the next slot.
        Returns the input of `logits_of` for the next token, (B, D). A cache of 2B rows gives (2B, D): both halves of
        guidance are fed the same tokens, and what they have in common is computed once.
        """
        slots: slice | Tensor
        if isinstance(slot, int):
            halves = 1 if len(tokens) == cache.batch_size else 2
            self._check_room(halves * len(tokens), slot=slot, count=1, cache=cache)
            slots, length, mask = slice(slot, slot + 1), slot + 1, None
            rotary = self.rotary_table[slots]
        else:
            if length is None:
                raise ValueError("a slot given as a tensor needs `length`, the number of slots to read")
            slots, mask = slot, (torch.arange(length, device=tokens.device) <= slot)[None, None, None]
            rotary = self.rotary_table.index_select(0, slot)
        if cache.visible is not None:
            visible = cache.visible[..., :length]
            mask = visible if mask is None else mask & visible
        this = Pass(rotary=rotary, slots=slots, length=length, mask=mask)
        return self._cached(self.tok_embeddings(tokens[:, None]), this, cache)

    def _cached(self, x: Tensor, this: Pass, cache: KVCache) -> Tensor:
        """The final norm's output (B, D) for the last slot of x (B, S, D)."""
        if self.training:
            raise ValueError("decoding runs in eval mode; call eval() on the model first")
        for index, block in enumerate(self.layers):
            x = block(x, this, cache.layer(index))
        return self.norm(x[:, -1])

    def _check_room(self, rows: int, *, slot: int, count: int, cache: KVCache) -> None:
        if rows != cache.batch_size or slot + count > cache.length:
            raise ValueError(
                f"a cache of {cache.batch_size} rows and {cache.length} slots cannot take {rows} rows "
                f"at slots {slot} to {slot + count - 1}"
            )


class LabelEmbedding(nn.Module):
    """Class labels to one slot; the last row of the table is the null class of classifier-free guidance."""

    def __init__(self, num_classes: int, dim: int, dropout_prob: float) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.dropout_prob = dropout_prob
        """Probability of the null class in training; may be changed at any time, the table keeps its rows."""
        self.embedding_table = nn.Embedding(num_classes + int(dropout_prob > 0), dim)

    def forward(self, labels: Tensor, drop_ids: Tensor | None = None) -> Tensor:
        """labels (B,) in 0 .. num_classes (the last = null) -> (B, 1, D)."""
        if drop_ids is not None:
            labels = torch.where(drop_ids.bool(), self.num_classes, labels)
        elif self.training and self.dropout_prob > 0:
            dropped = torch.rand(labels.shape[0], device=labels.device) < self.dropout_prob
            labels = torch.where(dropped, self.num_classes, labels)
        return self.embedding_table(labels)[:, None]


class ClassConditionalAR(Trunk):
    """Image tokens given a class label (c2i). The condition of every method is `labels`, int64 (B,)."""

    config: ARConfig
    cls_embedding: LabelEmbedding

    def __init__(self, config: ARConfig, *, activation_checkpointing: bool = False) -> None:
        super().__init__(
            config,
            LabelEmbedding(config.num_classes, config.dim, config.class_dropout_prob),
            (Block(config, layer) for layer in range(config.n_layer)),
            activation_checkpointing=activation_checkpointing,
        )

    @property
    def label_dropout(self) -> float:
        """Probability of the null class in training; assignable, within a table that has a null row."""
        return self.cls_embedding.dropout_prob

    @label_dropout.setter
    def label_dropout(self, probability: float) -> None:
        if probability > 0 and self.config.class_dropout_prob == 0:
            raise ValueError("this model has no null class; build it with class_dropout_prob above 0")
        self.cls_embedding.dropout_prob = probability

    def embed_condition(self, condition: Tensor, drop_ids: Tensor | None = None) -> Tensor:
        return self.cls_embedding(condition, drop_ids)

    def rows(self, condition: Tensor) -> Iterator[tuple[int, Tensor]]:
        yield from zip(condition.tolist(), condition.split(1), strict=True)

    def with_null(self, condition: Tensor) -> Tensor:
        if self.config.class_dropout_prob == 0:
            raise ValueError("guidance needs a null class, and this model has none; use cfg scale 1")
        return torch.cat([condition, torch.full_like(condition, self.config.num_classes)])
