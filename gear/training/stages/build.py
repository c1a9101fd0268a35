"""Build a stage that is ready to train, from a configuration and the files to start from."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

from gear.align import Projectors
from gear.ar.model import ClassConditionalAR, Trunk
from gear.ar.t2i import TextToImageAR
from gear.config import RunConfig
from gear.data.conditioning import require_condition
from gear.data.sources import ImageSource, open_source
from gear.foreign import load_exactly
from gear.teachers import Targets, build_teachers
from gear.text import CachingEncoder, TextEncoder, build_text_encoder
from gear.tokenizers import build_tokenizer
from gear.training.stages.ar import ARStage
from gear.training.stages.e2e import GearStage
from gear.training.stages.initial_weights import (
    frozen_tokenizer,
    init_projectors,
    init_tokenizer,
    initial_ar,
    require_discriminator,
)
from gear.training.stages.losses import build_loss_head
from gear.training.stages.stage import Stage
from gear.training.stages.t2i import TextToImageStage, warm_start
from gear.training.stages.tokenizer import TokenizerStage
from gear.weights import ModelFile, check_own_codes
from harness.contract.errors import UserError

A = TypeVar("A", bound=Trunk)


def build_stage(
    phase: str,
    config: RunConfig,
    device: torch.device,
    *,
    init: ModelFile | None = None,
    tokenizer: ModelFile | None = None,
) -> tuple[Stage, ImageSource]:
    """A stage and its data. The seed of the configuration decides every fresh weight.

    Args:
        phase: tokenizer, e2e, ar or t2i.
        init: file to start from. tokenizer: its tokenizer and critic, of any project; e2e: the same, of stage
            `tokenizer`; ar: AR model and projectors of stage `e2e`; t2i: the same, of a class-conditional or a
            text-to-image model.
        tokenizer: file with the frozen tokenizer of the stages `ar` and `t2i`; `init` when absent.
    Raises UserError where models or data do not fit the stage: data without captions or labels, for example.
    """
    torch.manual_seed(config.seed)
    stage, source = _BUILDERS[phase](config, device, init, tokenizer), open_source(config.data)
    require_condition(phase, source, config.data.num_classes)
    return stage, source


def _tokenizer_stage(config: RunConfig, device: torch.device, init: ModelFile | None, _: ModelFile | None) -> Stage:
    tokenizer, losses = build_tokenizer(config.tokenizer), build_loss_head(config)
    if init is not None:
        init_tokenizer(tokenizer, losses, init, config)
    return TokenizerStage(config, device, tokenizer=tokenizer, losses=losses)


def _gear_stage(config: RunConfig, device: torch.device, init: ModelFile | None, _: ModelFile | None) -> Stage:
    if init is None:
        raise UserError("stage e2e starts from a warmed-up tokenizer; give the stage-tokenizer model: --init SOURCE.")
    require_discriminator(init, config)
    tokenizer, losses = build_tokenizer(config.tokenizer), build_loss_head(config)
    init_tokenizer(tokenizer, losses, init, config)
    ar, projectors, targets = _ar_parts("e2e", config, device, lambda: ClassConditionalAR(config.class_ar))
    return GearStage(config, device, tokenizer=tokenizer, ar=ar, projectors=projectors, losses=losses, targets=targets)


def _ar_stage(config: RunConfig, device: torch.device, init: ModelFile | None, tokenizer: ModelFile | None) -> Stage:
    frozen = frozen_tokenizer("ar", config, tokenizer or init)
    ar, projectors, targets = _ar_parts("ar", config, device, lambda: ClassConditionalAR(config.class_ar))
    if init is not None:
        load_exactly(ar, initial_ar("ar", init), source=init.source)
        if tokenizer is not None:
            check_own_codes(init, tokenizer)
        init_projectors(projectors, init)
    return ARStage(config, device, tokenizer=frozen, ar=ar, projectors=projectors, targets=targets)


def _t2i_stage(config: RunConfig, device: torch.device, init: ModelFile | None, tokenizer: ModelFile | None) -> Stage:
    text_ar = config.text_ar
    assert config.text is not None  # text_ar has raised otherwise
    frozen = frozen_tokenizer("t2i", config, tokenizer or init)
    ar, projectors, targets = _ar_parts("t2i", config, device, lambda: TextToImageAR(text_ar))
    if init is not None:
        warm_start(ar, initial_ar("t2i", init), copy_image_stream=config.text.copy_image_stream)
        if tokenizer is not None:
            check_own_codes(init, tokenizer)
        init_projectors(projectors, init)
    encoder: TextEncoder = build_text_encoder(config.text, device, precision=config.precision)
    return TextToImageStage(
        config,
        device,
        text_encoder=CachingEncoder(encoder) if config.data.repeats else encoder,
        tokenizer=frozen,
        ar=ar,
        projectors=projectors,
        targets=targets,
    )


def _ar_parts(
    phase: str, config: RunConfig, device: torch.device, build: Callable[[], A]
) -> tuple[A, Projectors, Targets]:
    """A fresh AR model and projectors, and the teachers' patches as targets; none where nothing is aligned."""
    size, grid = config.data.image_size, config.tokenizer.grid_side(config.data.image_size)
    teachers = build_teachers(config.teacher, image_size=size, grid=grid) if config.aligns(phase) else []
    targets = Targets([teacher.to(device) for teacher in teachers], config.teacher, cached=config.data.repeats)
    ar = build()
    ar.activation_checkpointing = config.engine.activation_checkpointing
    projectors = Projectors(config.ar.dim, config.gear.projector_dim, targets.dims)
    return ar, projectors, targets


_BUILDERS: dict[str, Callable[[RunConfig, torch.device, ModelFile | None, ModelFile | None], Stage]] = {
    "tokenizer": _tokenizer_stage,
    "e2e": _gear_stage,
    "ar": _ar_stage,
    "t2i": _t2i_stage,
}
