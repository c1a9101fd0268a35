"""A request set in, a sample set out: the generator's side of the contract with the benchmarks.

Work is done shard by shard; a finished shard is never drawn again, and an image does not depend on which run, process
or batch drew it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from gear.ar.model import ClassConditionalAR
from gear.sampling.draws import PerImageDraw
from gear.sampling.pixels import resize, to_u8
from gear.sampling.rollout import SamplingOptions, roll_out
from gear.tokenizers import Tokenizer
from harness.contract.errors import UserError
from harness.contract.progress import Progress
from harness.contract.requests import Request, RequestSet
from harness.contract.samples import Form, SampleSet
from harness.contract.writer import SampleSetWriter

DRAW = "philox4x64-inverse-cdf-1"
"""Names the way seeds become tokens; part of a sample set's identity, so it changes when the way does."""

_SHARD_BYTES = 64 << 20
_MAX_SHARD_IMAGES = 256


def generate(
    ar: ClassConditionalAR,
    tokenizer: Tokenizer,
    request_set: RequestSet,
    out_dir: Path,
    *,
    generator: Mapping[str, Any],
    batch_size: int = 32,
    form: Form = "npz",
) -> SampleSet:
    """Draw what is missing of `request_set` into `out_dir`, and return the finished sample set.

    The protocol of the request set decides guidance, temperature, filters and the size that images are stored at.
    generator: who draws, checkpoint digests above all; unfinished work of another identity is refused.
    batch_size: images decoded together; every batch has this shape, the last one being filled up, so that the same
        kernels run for every image.
    Raises UserError when models and requests do not fit together.
    """
    engine = Engine(
        ar=ar,
        tokenizer=tokenizer,
        batch_size=batch_size,
        options=SamplingOptions.of(request_set.protocol),
        image_size=request_set.protocol.image_size,
    )
    engine.check(request_set)
    identity = {**generator, "draw": DRAW, "native_size": engine.native_size}
    shard_size = _shard_size(request_set.protocol.image_size, batch_size)
    writer = SampleSetWriter(out_dir, request_set, identity, form, shard_size)
    shards = writer.missing()
    progress = Progress(sum(map(len, shards)), "images")
    for shard in shards:
        parts = []
        for images_u8 in engine.draw(shard.requests):
            parts.append(images_u8)
            progress.advance(len(images_u8))
        writer.write(shard, np.concatenate(parts))
    return writer.finish()


@dataclass(frozen=True, kw_only=True)
class Engine:
    """Two models in eval mode and the options of a request set: requests in, images out."""

    ar: ClassConditionalAR
    tokenizer: Tokenizer
    batch_size: int
    options: SamplingOptions
    image_size: int
    """Side of the stored images; differs from `native_size` where a benchmark wants it so."""

    @property
    def native_size(self) -> int:
        """Side of the images as they are decoded."""
        return self.ar.config.grid_side * self.tokenizer.config.downsample

    def check(self, request_set: RequestSet) -> None:
        """Raises UserError when the AR, the tokenizer and the requests do not fit together."""
        codes, vocabulary = self.tokenizer.config.num_codes, self.ar.config.vocab_size
        if codes != vocabulary:
            raise UserError(
                f"the AR model knows {vocabulary} tokens and the tokenizer {codes}; "
                "give the tokenizer that the AR model was trained with (--vq-ckpt)."
            )
        if self.tokenizer.config.codes_per_token != 1:
            raise UserError(
                "the tokenizer has several codes per token, which no AR model here draws; give another one."
            )
        if self.batch_size < 1:
            raise UserError(f"the batch size is {self.batch_size}; it has to be at least 1.")
        self._check_labels(request_set)
        if self.options.guides and self.ar.config.class_dropout_prob == 0:
            raise UserError(
                f"request set {request_set.benchmark!r} asks for guidance (cfg scale {self.options.cfg_scale:g}), "
                "but the AR model has no null class; use cfg scale 1."
            )

    def _check_labels(self, request_set: RequestSet) -> None:
        num_classes = self.ar.config.num_classes
        for request in request_set:
            if request.label is None:
                raise UserError(
                    f"request {request.id!r} asks for a prompt, but this checkpoint draws class labels; "
                    "give a text-to-image checkpoint."
                )
            if request.label >= num_classes:
                raise UserError(
                    f"request {request.id!r} asks for class {request.label}, but the AR model has {num_classes} "
                    f"(0 to {num_classes - 1}); give a checkpoint trained on the request set's classes."
                )

    def draw(self, requests: Sequence[Request]) -> Iterator[npt.NDArray[np.uint8]]:
        """The images of `requests` in order, (n, H, W, 3) uint8 per batch."""
        for start in range(0, len(requests), self.batch_size):
            batch = list(requests[start : start + self.batch_size])
            filled = batch + [batch[-1]] * (self.batch_size - len(batch))
            yield self._images_u8(filled)[: len(batch)].cpu().numpy()

    @torch.inference_mode()
    def _images_u8(self, requests: Sequence[Request]) -> Tensor:
        """(B, H, W, 3) uint8, on the model's device."""
        device = self.ar.output.weight.device
        num_tokens = self.ar.config.block_size
        labels = torch.tensor([request.label for request in requests], device=device)
        draw = PerImageDraw([request.seed for request in requests], num_tokens, device)
        with in_eval_mode(self.ar, self.tokenizer):
            ids = roll_out(self.ar, labels, num_tokens=num_tokens, options=self.options, draw=draw)
            pixels = self.tokenizer.decode_ids(ids).float()
        if not pixels.isfinite().all():
            raise UserError("the tokenizer decodes to numbers that are not finite; its weights are damaged.")
        return to_u8(resize(pixels, self.image_size))


@contextmanager
def in_eval_mode(*models: nn.Module) -> Iterator[None]:
    """Models in eval mode for a while; back to what they were afterwards."""
    modes = [(module, module.training) for model in models for module in model.modules()]
    try:
        for model in models:
            model.eval()
        yield
    finally:
        for module, training in modes:
            module.training = training


def _shard_size(image_size: int, batch_size: int) -> int:
    """Images per shard: whole batches, about 64 MiB of pixels and at most 256 images (but at least one batch)."""
    fitting = min(_MAX_SHARD_IMAGES, _SHARD_BYTES // (3 * image_size**2))
    return batch_size * max(1, fitting // batch_size)
