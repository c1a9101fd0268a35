"""From a configuration and the files to start from, to a stage that is ready to train."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch

from gear.align import Projectors
from gear.ar.model import ClassConditionalAR, Trunk
from gear.ar.t2i import TextToImageAR
from gear.config import RunConfig
from gear.data.sources import ImageSource, open_source
from gear.foreign import load_exactly
from gear.teachers import Targets, build_teachers
from gear.text import RememberingEncoder, TextEncoder, build_text_encoder
from gear.tokenizers import Tokenizer, build_tokenizer
from gear.training.ar import ARStage
from gear.training.e2e import GearStage
from gear.training.losses import build_loss_head
from gear.training.stage import Stage
from gear.training.t2i import TextToImageStage, warm_start
from gear.training.tokenizer import TokenizerStage
from gear.weights import config_of, load_tokenizer
from harness.contract.errors import UserError

State = Mapping[str, Any]
A = TypeVar("A", bound=Trunk)


def build_stage(
    phase: str, config: RunConfig, device: torch.device, *, init: State | None = None, tokenizer: State | None = None
) -> tuple[Stage, ImageSource]:
    """A stage and its data. The seed of the configuration decides every fresh weight.

    Args:
        phase: tokenizer, e2e, ar or t2i.
        init: model file to warm-start from. tokenizer: its tokenizer; e2e: tokenizer and critic (a stage-`tokenizer`
            file); ar: AR model and projectors (a stage-`e2e` file); t2i: the
            same, of a class-conditional or a text-to-image model.
        tokenizer: model file with the frozen tokenizer of the stages `ar` and `t2i`; `init` when absent.
    """
    torch.manual_seed(config.seed)
    return _BUILDERS[phase](config, device, init, tokenizer), open_source(config.data)


def _tokenizer_stage(config: RunConfig, device: torch.device, init: State | None, _: State | None) -> Stage:
    tokenizer, losses = build_tokenizer(config.tokenizer), build_loss_head(config)
    if init is not None:
        _same_tokenizer(config, init)
        load_exactly(tokenizer, init["vq"], source="--init")
    return TokenizerStage(config, device, tokenizer=tokenizer, losses=losses)


def _gear_stage(config: RunConfig, device: torch.device, init: State | None, _: State | None) -> Stage:
    if init is None:
        raise UserError("stage e2e starts from a warmed-up tokenizer; give the stage-tokenizer model with --init FILE.")
    _same_tokenizer(config, init)
    tokenizer, losses = build_tokenizer(config.tokenizer), build_loss_head(config)
    # The live weights, and an average that starts from them: the published recipe, whatever average the file holds.
    load_exactly(tokenizer, init["vq"], source="--init")
    if "discriminator" in init:
        load_exactly(losses.discriminator, init["discriminator"], source="--init")
    ar, projectors, targets = _ar_parts(config, device, lambda: ClassConditionalAR(config.class_ar))
    return GearStage(config, device, tokenizer=tokenizer, ar=ar, projectors=projectors, losses=losses, targets=targets)


def _ar_stage(config: RunConfig, device: torch.device, init: State | None, tokenizer: State | None) -> Stage:
    frozen = _frozen_tokenizer("ar", config, tokenizer or init)
    ar, projectors, targets = _ar_parts(config, device, lambda: ClassConditionalAR(config.class_ar))
    if init is not None:
        load_exactly(ar, _averaged_ar("ar", init), source="--init")
        load_exactly(projectors, init["projectors"], source="--init")
    return ARStage(config, device, tokenizer=frozen, ar=ar, projectors=projectors, targets=targets)


def _t2i_stage(config: RunConfig, device: torch.device, init: State | None, tokenizer: State | None) -> Stage:
    frozen = _frozen_tokenizer("t2i", config, tokenizer or init)
    ar, projectors, targets = _ar_parts(config, device, lambda: TextToImageAR(config.text_ar))
    assert config.text is not None  # or text_ar would have said so
    if init is not None:
        warm_start(ar, _averaged_ar("t2i", init), copy_image_stream=config.text.copy_image_stream)
        load_exactly(projectors, init["projectors"], source="--init")
    encoder: TextEncoder = build_text_encoder(config.text, device, precision=config.precision)
    return TextToImageStage(
        config,
        device,
        text_encoder=RememberingEncoder(encoder) if config.data.repeats else encoder,
        tokenizer=frozen,
        ar=ar,
        projectors=projectors,
        targets=targets,
    )


def _frozen_tokenizer(phase: str, config: RunConfig, state: State | None) -> Tokenizer:
    if state is None:
        raise UserError(
            f"stage {phase} needs a trained tokenizer; give its model with --tokenizer FILE (or --init FILE)."
        )
    _same_tokenizer(config, state)
    return load_tokenizer(state)


def _averaged_ar(phase: str, init: State) -> Mapping[str, torch.Tensor]:
    if "ar" not in init:
        raise UserError(f"--init of stage {phase} needs an AR model, and that file has none; use it as --tokenizer.")
    weights: Mapping[str, torch.Tensor] = init.get("ema", init["ar"])
    return weights


def _ar_parts(
    config: RunConfig, device: torch.device, build: Callable[[], A]
) -> tuple[A, Projectors, Targets]:
    """A fresh AR model and projectors, and the teachers whose patches are the tokens' targets."""
    grid = config.tokenizer.grid_side(config.data.image_size)
    teachers = build_teachers(config.teacher, image_size=config.data.image_size, grid=grid)
    targets = Targets([teacher.to(device) for teacher in teachers], config.teacher, remember=config.data.repeats)
    ar = build()
    projectors = Projectors(config.ar.dim, config.gear.projector_dim, targets.dims)
    return ar, projectors, targets


def _same_tokenizer(config: RunConfig, state: State) -> None:
    theirs, ours = config_of(state).tokenizer.to_dict(), config.tokenizer.to_dict()
    for name in ours.keys() | theirs.keys():
        if name not in _TRAINING_ONLY and theirs.get(name) != ours.get(name):
            raise UserError(
                f"the tokenizer file has {name} = {theirs.get(name)} but the configuration says {ours.get(name)}; "
                "train from the preset that the file was trained with."
            )


_TRAINING_ONLY = {"commit_loss_beta", "entropy_loss_ratio"}
"""Loss weights: a later stage may change them, the weights still fit."""

_BUILDERS: dict[str, Callable[[RunConfig, torch.device, State | None, State | None], Stage]] = {
    "tokenizer": _tokenizer_stage,
    "e2e": _gear_stage,
    "ar": _ar_stage,
    "t2i": _t2i_stage,
}
