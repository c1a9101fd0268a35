"""Images from the models of a running stage, live or averaged: samples and reconstructions.

Sampling uses the engine of `gear sample`, so the images are those that it will give. Of a data set, a fixed
pseudo-random choice is shown: class folders are in order, so the first images would be of a few classes only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.distributed.tensor import DTensor

from gear.ar.model import ClassConditionalAR, Trunk
from gear.ar.t2i import TextToImageAR
from gear.data.base import BadSample, ImageSource, Sample
from gear.data.permutation import permuted
from gear.sampling.engine import Engine, Speed
from gear.sampling.pixels import OutputPixels, Rounding
from gear.sampling.rollout import SamplingOptions
from gear.tokenizers.base import Tokenizer
from gear.training.processes.distributed import gather_objects, world
from gear.training.processes.prepare import uncompiled
from gear.training.stages.stage import Stage
from harness.contract.requests import Prompt, RequestSet, SamplingProtocol, class_requests, prompt_requests

T = TypeVar("T")

ImagesU8 = npt.NDArray[np.uint8]
"""(N, H, W, 3)."""
Images01 = npt.NDArray[np.float32]
"""(N, 3, H, W) in [0, 1], not rounded."""
Weights = Literal["live", "ema"]
Labels = Literal["balanced", "random"]
_CHOICE = (0, 0, 0, 9)
"""Key of the permutation whose first samples are shown; its length differs from that of the training order's keys."""


class EvaluationModels:
    """The plain modules of a stage: in eval mode, unsharded, uncompiled. Made by `evaluation_models`."""

    def __init__(self, tokenizer: Tokenizer, ar: Trunk | None, encoder: Any) -> None:
        self.tokenizer, self.ar, self.encoder = tokenizer, ar, encoder

    def engine(self, protocol: SamplingProtocol, *, rounding: Rounding = "truncate") -> Engine:
        """The engine that draws under `protocol`, a tile of requests at a time."""
        assert self.ar is not None
        return Engine(
            self.ar,
            self.tokenizer,
            options=SamplingOptions.of(protocol),
            storing=OutputPixels(image_size=protocol.image_size, rounding=rounding),
            encoder=self.encoder,
            speed=Speed(compiled=False),
        )

    @torch.inference_mode()
    def reconstruct(self, images_u8: ImagesU8) -> Images01:
        """Reconstructions of one batch."""
        weight = next(self.tokenizer.parameters())
        batch = torch.from_numpy(images_u8).to(weight.device).permute(0, 3, 1, 2)
        recon = self.tokenizer(batch.to(torch.get_default_dtype()) / 127.5 - 1.0).recon
        assert recon is not None
        return ((recon.clamp(-1.0, 1.0) + 1.0) / 2.0).float().cpu().numpy()


@contextmanager
def evaluation_models(stage: Stage, weights: Weights, *, with_ar: bool = True) -> Iterator[EvaluationModels]:
    """The models of `stage`; their modes are restored afterwards. All processes call it: shards are gathered."""
    live, averages = stage.modules, {name: average.module for name, average in stage.averages.items()}
    tokenizer = averages.get("vq_ema", live["vq"]) if weights == "ema" else live["vq"]
    ar = averages.get("ema", live.get("ar")) if weights == "ema" else live.get("ar")
    ar = ar if with_ar else None
    assert isinstance(tokenizer, Tokenizer)
    assert ar is None or isinstance(ar, Trunk)
    if ar is not None and any(isinstance(parameter, DTensor) for parameter in ar.parameters()):
        ar = _whole_copy(ar, stage.device)
    used = [module for module in (tokenizer, ar) if module is not None]
    modes = [(part, part.training) for module in used for part in module.modules()]
    with uncompiled(*used):
        try:
            for module in used:
                module.eval()
            yield EvaluationModels(tokenizer, ar, getattr(stage, "text_encoder", None))
        finally:
            for part, training in modes:
                part.training = training


def _whole_copy(ar: Trunk, device: torch.device) -> Trunk:
    """An unsharded copy in every process, for as long as pictures are drawn."""
    with torch.device("meta"):
        copy: Trunk = ClassConditionalAR(ar.config) if isinstance(ar, ClassConditionalAR) else _text_copy(ar)
    copy.to_empty(device=device)
    tensors = chain(
        zip(copy.parameters(), ar.parameters(), strict=True), zip(copy.buffers(), ar.buffers(), strict=True)
    )
    with torch.no_grad():
        for ours, theirs in tensors:
            ours.copy_(theirs.full_tensor() if isinstance(theirs, DTensor) else theirs)
    return copy.requires_grad_(False)


def _text_copy(ar: nn.Module) -> TextToImageAR:
    assert isinstance(ar, TextToImageAR)
    return TextToImageAR(ar.config)


def requests_for(
    stage: Stage,
    source: ImageSource,
    count: int,
    protocol: SamplingProtocol,
    stop_if_requested: Callable[[], None] = lambda: None,
    labels: Labels = "balanced",
) -> RequestSet:
    """Requests that suit a stage: labels in turn or at random, or the captions of the samples of `fixed_choice`; always
    the same.

    All processes call it: each reads its share of the captions, with their images.
    """
    if isinstance(stage.modules.get("ar"), ClassConditionalAR):
        classes = stage.config.data.num_classes
        return class_requests("watch", 1, protocol, count=count, num_classes=classes, labels=labels)
    own = fixed_choice(source, count)[world().rank :: world().size]
    captions = [
        (index, sample.caption or "")
        for batch in in_batches(own, stage.config.watch.batch_size, stop_if_requested)
        for index in batch
        for sample in _usable(source, [index])
    ]
    ordered = sorted(pair for part in gather_objects(captions) for pair in part)
    prompts = [Prompt(item=f"{number:05d}", text=caption) for number, (_, caption) in enumerate(ordered)]
    return prompt_requests("watch", 1, protocol, prompts=prompts)


def in_batches(own: Sequence[T], size: int, stop_if_requested: Callable[[], None]) -> Iterator[Sequence[T]]:
    """This process's share of some work, `size` at a time; `stop_if_requested` may end all processes before each batch.

    All processes get the same number of batches, so that all end before the same one; the last may be empty.
    """
    for start in range(0, max(gather_objects(len(own))), size):
        stop_if_requested()
        yield own[start : start + size]


def fixed_choice(source: ImageSource, count: int) -> list[int]:
    """At most `count` samples of a source, in order: the same ones at every step, in every run, in every process."""
    among = len(source)
    return sorted(permuted(np.arange(min(count, among)), among, _CHOICE).tolist())


def images_of(source: ImageSource, indices: Iterable[int]) -> ImagesU8 | None:
    """These samples as the source shows them, without unusable ones; None where there are no others."""
    images = [sample.image_u8.transpose(1, 2, 0) for sample in _usable(source, indices)]
    return np.stack(images) if images else None


def to_01(images_u8: ImagesU8) -> Images01:
    return images_u8.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255.0)


def _usable(source: ImageSource, indices: Iterable[int]) -> Iterator[Sample]:
    for index in indices:
        try:
            yield source.item(index, np.random.default_rng(index))
        except BadSample:
            continue
