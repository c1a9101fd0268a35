"""Images from the models of a running stage, live or averaged: drawn ones, and reconstructions.

Sampling is the engine of `gear sample`, so what one watches is what one will get.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.distributed.tensor import DTensor

from gear.ar.model import ClassConditionalAR, Trunk
from gear.ar.t2i import TextToImageAR
from gear.data.base import BadSample, ImageSource
from gear.sampling.engine import Engine, Speed
from gear.sampling.pixels import Rounding, Storing
from gear.sampling.rollout import SamplingOptions
from gear.tokenizers.base import Tokenizer
from gear.training.engine import uncompiled
from gear.training.stage import Stage
from harness.contract.requests import Prompt, Protocol, Request, RequestSet, class_requests, prompt_requests

ImagesU8 = npt.NDArray[np.uint8]
"""(N, H, W, 3)."""
Weights = Literal["live", "ema"]


class Models:
    """The plain modules of a stage: eval mode, whole, uncompiled. Made by `models_of`."""

    def __init__(self, tokenizer: Tokenizer, ar: Trunk | None, encoder: Any) -> None:
        self.tokenizer, self.ar, self.encoder = tokenizer, ar, encoder

    def draw(self, requests: Sequence[Request], protocol: Protocol, *, rounding: Rounding = "truncate") -> ImagesU8:
        """Images of `requests`, in order."""
        assert self.ar is not None
        engine = Engine(
            self.ar,
            self.tokenizer,
            options=SamplingOptions.of(protocol),
            storing=Storing(image_size=protocol.image_size, rounding=rounding),
            encoder=self.encoder,
            speed=Speed(compiled=False),
        )
        tiles = [requests[start : start + engine.tile] for start in range(0, len(requests), engine.tile)]
        return np.concatenate([engine.images_u8(engine.tokens(tile)) for tile in tiles])

    @torch.inference_mode()
    def reconstruct(self, images_u8: ImagesU8, batch_size: int) -> npt.NDArray[np.float32]:
        """(N, H, W, 3) uint8 -> reconstructions (N, 3, H, W) in [0, 1], clamped and not rounded."""
        device = next(self.tokenizer.parameters()).device
        parts = []
        for start in range(0, len(images_u8), batch_size):
            batch = torch.from_numpy(images_u8[start : start + batch_size]).to(device).permute(0, 3, 1, 2)
            recon = self.tokenizer(batch.to(torch.get_default_dtype()) / 127.5 - 1.0).recon
            assert recon is not None
            parts.append(((recon.clamp(-1.0, 1.0) + 1.0) / 2.0).float().cpu().numpy())
        return np.concatenate(parts)


@contextmanager
def models_of(stage: Stage, weights: Weights) -> Iterator[Models]:
    """The models of `stage` for a while; their modes come back. All processes call it: shards are gathered."""
    live, averages = stage.modules, {name: average.module for name, average in stage.averages.items()}
    tokenizer = averages.get("vq_ema", live["vq"]) if weights == "ema" else live["vq"]
    ar = averages.get("ema", live.get("ar")) if weights == "ema" else live.get("ar")
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
            yield Models(tokenizer, ar, getattr(stage, "text_encoder", None))
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


def requests_for(stage: Stage, source: ImageSource, count: int, protocol: Protocol) -> RequestSet:
    """What a stage can be asked for: labels in turn, or the captions of the first samples. Always the same."""
    if isinstance(stage.modules.get("ar"), ClassConditionalAR):
        classes = stage.config.data.num_classes
        return class_requests("watch", 1, protocol, count=count, num_classes=classes, labels="balanced")
    captions = [sample.caption or "" for sample in _samples(source, count)]
    prompts = [Prompt(item=f"{number:05d}", text=caption) for number, caption in enumerate(captions)]
    return prompt_requests("watch", 1, protocol, prompts=prompts)


def images_of(source: ImageSource, start: int, stop: int, step: int = 1) -> ImagesU8:
    """Samples start, start + step, ... below stop of a source, as it shows them; unusable ones are left out."""
    return np.stack([sample.image_u8.transpose(1, 2, 0) for sample in _samples(source, stop, start, step)])


def _samples(source: ImageSource, stop: int, start: int = 0, step: int = 1) -> Iterator[Any]:
    for index in range(start, min(stop, len(source)), step):
        try:
            yield source.item(index, np.random.default_rng(index))
        except BadSample:
            continue
