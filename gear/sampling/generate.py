"""From a request set to a sample set: the generator's side of the contract with the benchmarks.

Work is done shard by shard; a finished shard is never drawn again, and an image does not depend on which run, process
or batch drew it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from gear.ar.model import Trunk
from gear.sampling.background import BackgroundWorker
from gear.sampling.engine import Engine, Speed
from gear.sampling.parity import Parity, generate_in_parity
from gear.sampling.pixels import OutputPixels, Rounding
from gear.sampling.rollout import SamplingOptions
from gear.sampling.shards import SamplingProcess, shards_to_draw
from gear.text.base import TextEncoder
from gear.tokenizers import Tokenizer
from harness.contract.errors import UserError
from harness.contract.progress import Progress
from harness.contract.requests import RequestSet
from harness.contract.samples import Form, SampleSet
from harness.contract.writer import SampleSetWriter, Shard

log = logging.getLogger(__name__)

DRAW = "philox4x64-inverse-cdf-1"
"""Name of the method that turns seeds into tokens; part of a sample set's identity, so it changes with the method."""

_SHARD_BYTES = 64 << 20
_MAX_SHARD_IMAGES = 256
_SHARDS_PER_RANK = 4
"""At least this many if there are enough images: all processes then finish at about the same time."""


def generate(
    ar: Trunk,
    tokenizer: Tokenizer,
    request_set: RequestSet,
    out_dir: Path,
    *,
    generator: Mapping[str, Any],
    encoder: TextEncoder | None = None,
    batch_size: int = 32,
    form: Form = "npz",
    rounding: Rounding = "truncate",
    speed: Speed | None = None,
    process: SamplingProcess | None = None,
    parity: Parity | None = None,
) -> SampleSet | None:
    """Draw what is missing of `request_set` into `out_dir`, and return the finished sample set.

    The protocol of the request set decides guidance, temperature, filters and the size that images are stored at.
    generator: identity of the generator, above all checkpoint digests; unfinished work of another identity is refused.
    encoder: text encoder of the prompts, for a text-to-image model.
    batch_size: images in progress at once, in whole tiles: it costs memory, and changes no pixel.
    process: which of several processes this is. They share the work through `out_dir`; rank 0 assembles the set and
        returns it, the others return None.
    parity: draw as the reference does, not from the requests' seeds; in one process.
    Raises UserError when models and requests do not fit together.
    """
    process = process or SamplingProcess()
    if batch_size < 1:
        raise UserError(f"the batch size is {batch_size}; it must be at least 1.")
    image_size, scale = request_set.protocol.image_size, request_set.protocol.cfg_scale
    if scale < 1:
        log.warning("the guidance scale %g draws like 1, without guidance: guidance begins above 1.", scale)
    engine = Engine(
        ar,
        tokenizer,
        options=SamplingOptions.of(request_set.protocol),
        storing=OutputPixels(
            image_size=image_size, resize_levels=not request_set.is_class_conditional, rounding=rounding
        ),
        encoder=encoder,
        speed=speed,
    )
    if parity is not None:
        with in_eval_mode(tokenizer):
            return generate_in_parity(engine, request_set, out_dir, parity, generator=generator, form=form)
    engine.check(request_set)
    shard_size = _shard_size(image_size, engine.tile, len(request_set), process.num_ranks)
    identity = {**generator, "draw": DRAW, **engine.identity}
    writer = SampleSetWriter(out_dir, request_set, identity, form, shard_size)
    with in_eval_mode(tokenizer):
        _draw_missing(engine, writer, process, depth=max(1, batch_size // engine.tile))
    engine.conditions.report()
    return writer.finish() if process.rank == 0 else None


def _draw_missing(engine: Engine, writer: SampleSetWriter, process: SamplingProcess, depth: int) -> None:
    """Tokens in this thread, all later work in another one."""
    finisher = _Finisher(engine, writer, process)
    with BackgroundWorker(finisher.finish, depth) as background:
        for shard in shards_to_draw(writer, process):
            for start in range(0, len(shard), engine.tile):
                tokens = engine.tokens(shard.requests[start : start + engine.tile])
                background.put(shard, tokens, finisher.mark())


class _Finisher:
    """The work after the tokens: pixels, shards, progress. Runs in its own thread."""

    def __init__(self, engine: Engine, writer: SampleSetWriter, process: SamplingProcess) -> None:
        self.engine, self.writer = engine, writer
        self.parts: list[npt.NDArray[np.uint8]] = []
        self.shared = process.num_ranks > 1
        self.progress = Progress(self._num_missing(), "images") if process.rank == 0 else None
        on_gpu = engine.device.type == "cuda"
        self.stream = torch.cuda.Stream(engine.device) if on_gpu else None

    def mark(self) -> torch.cuda.Event | None:
        """An event for when the tokens just launched are ready; called in the thread that draws."""
        return None if self.stream is None else torch.cuda.current_stream(self.engine.device).record_event()

    def finish(self, shard: Shard, tokens: Tensor, ready: torch.cuda.Event | None) -> None:
        """Decode some tokens of `shard`; its last ones complete it, and it is written."""
        if self.stream is not None and ready is not None:
            self.stream.wait_event(ready)
            tokens.record_stream(self.stream)
        with torch.cuda.stream(self.stream):  # nothing for None
            self.parts.append(self.engine.images_u8(tokens))
        if sum(map(len, self.parts)) == len(shard):
            if not self.writer.is_written(shard):
                self.writer.write(shard, np.concatenate(self.parts))
            self.parts = []
        self._count(len(tokens), whole=not self.parts)

    def _count(self, images: int, *, whole: bool) -> None:
        if self.progress is None:
            return
        if not self.shared:
            self.progress.advance(images)
        elif whole:  # other processes have written too
            self.progress.advance(self.progress.total - self._num_missing() - self.progress.done)

    def _num_missing(self) -> int:
        return sum(map(len, self.writer.missing()))


@contextmanager
def in_eval_mode(*models: nn.Module) -> Iterator[None]:
    """Inside the block the models are in eval mode; afterwards their modes are restored."""
    modes = [(module, module.training) for model in models for module in model.modules()]
    try:
        for model in models:
            model.eval()
        yield
    finally:
        for module, training in modes:
            module.training = training


def _shard_size(image_size: int, tile: int, count: int, num_ranks: int) -> int:
    """Images per shard: whole tiles, about 64 MiB of pixels, at most 256 images, and several shards per process."""
    fitting = min(_MAX_SHARD_IMAGES, _SHARD_BYTES // (3 * image_size**2), count // (_SHARDS_PER_RANK * num_ranks))
    return tile * max(1, fitting // tile)
