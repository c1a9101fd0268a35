"""Draw image tokens from an AR model, one at a time, with classifier-free guidance.

Shapes: B images, N tokens, T conditioning slots, K codebook entries; under guidance the model runs on 2B rows,
[conditional ; null].
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from gear.ar.cache import Prefix
from gear.ar.model import Trunk
from gear.ar.packed import for_decoding
from gear.sampling.draws import Draw
from gear.sampling.filters import filtered_probs, guided
from gear.sampling.graphs import GraphCache
from harness.contract.errors import UserError
from harness.contract.requests import SamplingProtocol


@dataclass(frozen=True, kw_only=True)
class SamplingOptions:
    """How tokens are drawn; the fields of a benchmark's protocol that concern the AR."""

    cfg_scale: float = 1.0
    """Guidance scale; 1 and below means no guidance."""
    cfg_interval: float = -1.0
    """Guide image tokens 0 .. cfg_interval + 1, and no later ones; -1 or less guides all. Token 0 is always guided."""
    temperature: float = 1.0
    """Logits are divided by it."""
    top_k: int = 0
    """Keep the k likeliest tokens and those tied with the last of them; 0 keeps all."""
    top_p: float = 1.0
    """Keep the likeliest tokens up to this mass; 1 keeps all."""

    @staticmethod
    def of(protocol: SamplingProtocol) -> SamplingOptions:
        """The options a benchmark asks for."""
        names = [entry.name for entry in dataclasses.fields(SamplingOptions)]
        return SamplingOptions(**{name: getattr(protocol, name) for name in names})

    @property
    def guides(self) -> bool:
        """Whether any token is guided, so that the null condition is needed."""
        return self.cfg_scale > 1.0

    def guides_token(self, index: int) -> bool:
        """Whether image token `index` is guided."""
        return self.guides and (index == 0 or self.cfg_interval <= -1 or index - 1 <= self.cfg_interval)


@dataclass
class Trace:
    """A roll-out's values at every step, for checks: lists of (B, K), one entry per image token."""

    logits: list[Tensor] = field(default_factory=list)
    """After guidance, before temperature and filters."""
    probs: list[Tensor] = field(default_factory=list)
    """The distribution that the token was drawn from."""


class RollOut:
    """Draws the tokens of a fixed number of images at every call, in buffers allocated once.

    The null rows of guidance run only while tokens are still to be guided: without them nothing changes for the
    conditional rows. On a GPU the steps are recorded as CUDA graphs and replayed, one for each length of the cache
    rounded up to `stride`, so that a step costs the host a single launch.
    """

    def __init__(
        self,
        ar: Trunk,
        *,
        images: int,
        num_tokens: int,
        options: SamplingOptions,
        draw: Draw,
        stride: int | None = None,
    ) -> None:
        """ar: a model in eval mode, best from `for_decoding`. stride: see above; None reads exactly the filled
        slots, and records nothing."""
        self.ar, self.images, self.num_tokens, self.options, self.draw = ar, images, num_tokens, options, draw
        self.stride = stride
        self.cache = ar.new_cache(images * (2 if options.guides else 1), num_tokens)
        device = self.cache.keys.device
        self.tokens = torch.zeros(images, num_tokens, dtype=torch.int64, device=device)
        self.index = torch.zeros(1, dtype=torch.int64, device=device)
        self.finite = torch.ones((), dtype=torch.bool, device=device)
        state = (self.tokens, self.index, self.finite)
        self._play = GraphCache(state).run if stride and device.type == "cuda" else _at_once
        self._trace: Trace | None = None

    @torch.inference_mode()
    def __call__(self, own: Sequence[Prefix], null: Sequence[Prefix] = (), trace: Trace | None = None) -> Tensor:
        """Ids (B, N) int64 in raster order, for one prefix per image.

        null: of the null condition, when there is guidance; one for all images or one each.
        Raises UserError when the model's logits are not finite.
        """
        self._trace = trace
        nulls = list(null) * len(own) if len(null) == 1 else null
        self._load([*own, *nulls])
        self.index.zero_()
        self.finite.fill_(True)
        self._pick(torch.stack([prefix.normed for prefix in self._prefixes]), self.options.guides_token(0))
        for index in range(1, self.num_tokens):
            guides = self.options.guides_token(index)
            if self.stride is None:
                self._step(self.ar.num_cond + index - 1, None, guides)
            else:
                length = min(self.cache.length, self.stride * -(-(self.ar.num_cond + index) // self.stride))
                self._play((length, guides), partial(self._step, None, length, guides))
        if not self.finite:  # the only synchronisation with the device
            raise UserError(
                "the AR model's logits are not finite numbers; its weights are damaged or training diverged."
            )
        return self.tokens.clone()

    def _load(self, prefixes: list[Prefix]) -> None:
        if len(prefixes) != self.cache.batch_size:
            raise ValueError(f"{self.cache.batch_size} prefixes are needed, not {len(prefixes)}")
        self._prefixes = prefixes
        for row, prefix in enumerate(prefixes):
            self.cache.load(row, prefix)

    def _step(self, slot: int | None, length: int | None, guides: bool) -> None:
        """Feed the last token, draw the next. `slot` None: it is counted on the device."""
        at = self.index + (self.ar.num_cond - 1) if slot is None else slot
        fed = self.tokens.index_select(1, self.index - 1)[:, 0]
        cache = self.cache if guides else self.cache.first(self.images)
        self._pick(self.ar.decode(fed, at, cache, length), guides)

    def _pick(self, normed: Tensor, guides: bool) -> None:
        """Draw image token `index` from the input of the head (B or 2B, D), and increment `index`.

        The head is linear, so guidance is applied before it: half the rows to multiply, the same logits.
        """
        options = self.options
        normed = guided(normed, options.cfg_scale) if guides else normed[: self.images]
        logits = self.ar.logits_of(normed)
        probs = filtered_probs(logits, options.temperature, options.top_k, options.top_p)
        self.finite &= probs[:, 0].isfinite().all()  # a NaN or +infinity among the logits makes its row NaN
        self.tokens.index_copy_(1, self.index, self.draw(probs, self.index)[:, None])
        self.index += 1
        if self._trace is not None:
            self._trace.logits.append(logits)
            self._trace.probs.append(probs)


def _at_once(key: Hashable, step: Callable[[], None]) -> None:
    step()


@torch.inference_mode()
def prefix_of(ar: Trunk, condition: Any) -> Prefix:
    """The prefix of a single condition (a batch of one), computed alone.

    Alone, so that it is the same to the last bit whatever else is drawn with it.
    """
    cache = ar.new_cache(1, 0)
    normed = ar.prefill(condition, cache)
    return cache.prefix(0, ar.num_cond, normed[0])


@torch.inference_mode()
def roll_out(
    ar: Trunk,
    condition: Any,
    *,
    num_tokens: int,
    options: SamplingOptions,
    draw: Draw,
    trace: Trace | None = None,
) -> Tensor:
    """Draw `num_tokens` image tokens per condition: ids (B, N) int64, in raster order.

    condition: what the model is conditioned on, labels (B,) for the class-conditional AR.
    Raises UserError when the model's logits are not finite.
    """
    ar = for_decoding(ar)
    known: dict[Hashable, Prefix] = {}
    prefixes = []
    for key, row in ar.rows(ar.with_null(condition) if options.guides else condition):
        if key not in known:
            known[key] = prefix_of(ar, row)
        prefixes.append(known[key])
    count = len(condition)
    run = RollOut(ar, images=count, num_tokens=num_tokens, options=options, draw=draw)
    return run(prefixes[:count], prefixes[count:], trace)
