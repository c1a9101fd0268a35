"""From a configuration and the files to start from, to a stage that is ready to train."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from gear.align import Projectors
from gear.ar.model import ClassConditionalAR
from gear.config import RunConfig
from gear.data.sources import ImageSource, open_source
from gear.foreign import load_exactly
from gear.teachers import Targets, build_teacher
from gear.tokenizers import build_tokenizer
from gear.training.ar import ARStage
from gear.training.e2e import GearStage
from gear.training.losses import build_loss_head
from gear.training.stage import Stage
from gear.training.tokenizer import TokenizerStage
from gear.weights import config_of, load_tokenizer
from harness.contract.errors import UserError

State = Mapping[str, Any]


def build_stage(
    phase: str, config: RunConfig, device: torch.device, *, init: State | None = None, tokenizer: State | None = None
) -> tuple[Stage, ImageSource]:
    """A stage and its data. The seed of the configuration decides every fresh weight.

    Args:
        phase: tokenizer, e2e or ar.
        init: model file to warm-start from. tokenizer: its tokenizer; e2e: tokenizer and critic (a stage-`tokenizer`
            file); ar: AR model and projectors (a stage-`e2e` file).
        tokenizer: model file with the frozen tokenizer of stage `ar`; `init` when absent.
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
    ar, projectors, targets = _ar_parts(config, device)
    return GearStage(config, device, tokenizer=tokenizer, ar=ar, projectors=projectors, losses=losses, targets=targets)


def _ar_stage(config: RunConfig, device: torch.device, init: State | None, tokenizer: State | None) -> Stage:
    frozen = tokenizer or init
    if frozen is None:
        raise UserError("stage ar needs a trained tokenizer; give its model with --tokenizer FILE (or --init FILE).")
    _same_tokenizer(config, frozen)
    ar, projectors, targets = _ar_parts(config, device)
    if init is not None:
        if "ar" not in init:
            raise UserError("--init of stage ar needs an AR model, and that file has none; use it as --tokenizer.")
        load_exactly(ar, init.get("ema", init["ar"]), source="--init")
        load_exactly(projectors, init["projectors"], source="--init")
    return ARStage(config, device, tokenizer=load_tokenizer(frozen), ar=ar, projectors=projectors, targets=targets)


def _ar_parts(config: RunConfig, device: torch.device) -> tuple[ClassConditionalAR, Projectors, Targets]:
    """A fresh AR model and projectors, and the teacher whose patches are the tokens' targets."""
    grid = config.tokenizer.grid_side(config.data.image_size)
    teacher = build_teacher(config.teacher, grid).to(device)
    if teacher.grid != grid:
        raise UserError(f"the teacher gives {teacher.grid}^2 patches but an image is {grid}^2 tokens; they must agree.")
    ar = ClassConditionalAR(config.class_ar)
    projectors = Projectors(config.ar.dim, config.gear.projector_dim, [teacher.dim])
    return ar, projectors, Targets(teacher, config.teacher, remember=config.data.kind == "digits")


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
}
