"""From requests to tokens and images, with two models and the options of a request set, in fixed batch shapes.

An image must not depend, to the last bit, on how many others are drawn with it: a product of 8 rows may be summed in
another order than one of 32, and a last bit can change a token. So everything runs in shapes that are fixed for a
device and an image size: the AR model on tiles of images, the last one filled up; the tokenizer's decoder on groups of
them; and conditions one at a time.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gear.ar.cache import Prefix
from gear.ar.model import Trunk
from gear.ar.packed import for_decoding
from gear.numerics import power_of_two_threads
from gear.sampling.conditions import Key, conditions_of
from gear.sampling.draws import PerImageDraw
from gear.sampling.pixels import OutputPixels
from gear.sampling.rollout import RollOut, SamplingOptions, prefix_of
from gear.text.base import TextEncoder
from gear.tokenizers import Tokenizer
from gear.weights import check_pair
from harness.contract.errors import UserError
from harness.contract.requests import Request, RequestSet

TILE = {"cpu": 8, "cuda": 32}
"""Images that the AR model draws at once. 8 keep a CPU busy; on a GPU 32 take no longer to read the weights for."""
_GROUP_PIXELS = {"cpu": 1 << 18, "cuda": 1 << 21}
"""Pixels that the tokenizer decodes at once: 4 images of 256 px on a CPU, 32 on a GPU."""
_STRIDE = 128
"""Slots by which the attention length grows from one recorded GPU step to the next."""
_PREFIX_BYTES = 256 << 20
_ARITHMETIC = 5
"""Increased whenever the rounding of logits or pixels changes: unfinished work with other bits is not continued."""


@dataclass(frozen=True, kw_only=True)
class Speed:
    """How the work is done; `tile` and `dtype` may change last bits, and are part of the identity of the samples."""

    tile: int | None = None
    """Images per roll-out; None takes the device's of `TILE`."""
    dtype: torch.dtype | None = None
    """Of the AR model's weights and cache; None keeps the weights'."""
    compiled: bool = True
    """Fuse the AR model's blocks with torch.compile; on a GPU only."""


class Engine:
    """Draws tokens and decodes them. Models in eval mode; they are not changed."""

    def __init__(
        self,
        ar: Trunk,
        tokenizer: Tokenizer,
        *,
        options: SamplingOptions,
        storing: OutputPixels,
        encoder: TextEncoder | None = None,
        speed: Speed | None = None,
    ) -> None:
        speed = speed or Speed()
        check_pair(tokenizer, ar)
        self.device = ar.tok_embeddings.weight.device
        self.tile = TILE.get(self.device.type, TILE["cpu"]) if speed.tile is None else speed.tile
        if self.tile < 1:
            raise UserError(f"the tile is {self.tile}; it must be at least 1.")
        self.conditions = conditions_of(ar, encoder)
        self.tokenizer, self.options, self.storing = tokenizer, options, storing
        self.native_size = ar.config.grid_side * tokenizer.config.downsample
        pixels = _GROUP_PIXELS.get(self.device.type, _GROUP_PIXELS["cpu"])
        self.group = max(1, min(32, pixels // self.native_size**2))
        self.num_tokens = ar.config.block_size
        on_gpu = self.device.type == "cuda"
        self.ar = for_decoding(ar, dtype=speed.dtype, compiled=speed.compiled and on_gpu)
        self.dtype = self.ar.tok_embeddings.weight.dtype
        self._stride = _STRIDE if on_gpu else None
        self._prefixes: OrderedDict[Key, Prefix] = OrderedDict()
        self._draw: PerImageDraw | None = None
        self._roll_out: RollOut | None = None

    @property
    def identity(self) -> dict[str, object]:
        """What affects a pixel's last bit besides the weights, as JSON values."""
        return {
            "arithmetic": _ARITHMETIC,
            "device": self.device.type,
            "dtype": str(self.dtype).removeprefix("torch."),
            "tile": self.tile,
            "native_size": self.native_size,
            "storing": self.storing.name,
        }

    def check(self, request_set: RequestSet) -> None:
        """Raises UserError when models and requests do not fit together."""
        self.conditions.check(request_set, guides=self.options.guides)
        wanted = request_set.protocol.image_size
        if request_set.is_class_conditional and wanted > self.native_size:
            raise UserError(
                f"request set {request_set.benchmark!r} asks for {wanted} px, but the models draw "
                f"{self.native_size} px, which is not enlarged; give models of that size, or ask for "
                f"{self.native_size} px."
            )

    def tokens(self, requests: Sequence[Request]) -> Tensor:
        """Image tokens (n, N) int64 of at most a tile of requests, on the device."""
        filled = [*requests, *[requests[-1]] * (self.tile - len(requests))]
        seeds = [request.seed for request in filled]
        if self._roll_out is None or self._draw is None:
            self._draw = PerImageDraw(seeds, self.num_tokens, self.device)
            self._roll_out = RollOut(
                self.ar,
                images=self.tile,
                num_tokens=self.num_tokens,
                options=self.options,
                draw=self._draw,
                stride=self._stride,
            )
        self._draw.reseed(seeds)
        with power_of_two_threads():
            return self._roll_out(*self.prefixes_of(filled))[: len(requests)]

    def prefixes_of(self, requests: Sequence[Request]) -> tuple[list[Prefix], list[Prefix]]:
        """The prefix of each request's condition; and that of the null condition, where there is guidance."""
        keys = [self.conditions.key(request) for request in requests]
        prefixes = self._prefixes_of([*keys, *[None] * self.options.guides])
        return prefixes[: len(keys)], prefixes[len(keys) :]

    def _prefixes_of(self, keys: Sequence[Key]) -> list[Prefix]:
        """One for each key; the most recent are cached."""
        for key in dict.fromkeys(keys):
            if key not in self._prefixes:
                self._prefixes[key] = prefix_of(self.ar, self.conditions.condition(key))
            self._prefixes.move_to_end(key)
        found = [self._prefixes[key] for key in keys]
        held = sum(prefix.num_bytes for prefix in self._prefixes.values())
        while held > _PREFIX_BYTES and len(self._prefixes) > len(set(keys)):
            held -= self._prefixes.popitem(last=False)[1].num_bytes
        return found

    @torch.inference_mode()
    def images_u8(self, tokens: Tensor) -> npt.NDArray[np.uint8]:
        """(n, H, W, 3) uint8 of tokens (n, N)."""
        parts = []
        for group in tokens.split(self.group):
            filled = torch.cat([group, group[-1:].expand(self.group - len(group), -1)])
            pixels = self.tokenizer.decode_ids(filled).float()
            if not pixels.isfinite().all():
                raise UserError("the tokenizer decodes to numbers that are not finite; its weights are damaged.")
            parts.append(self.storing(pixels)[: len(group)])
        return np.concatenate(parts)
