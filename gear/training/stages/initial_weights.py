"""The initial weights of a stage: from the files of earlier stages, or from published ones."""

from __future__ import annotations

import logging

from torch import nn

from gear.assets import find_asset
from gear.config import RunConfig
from gear.foreign import StateDict, load_exactly
from gear.losses.head import LossHead
from gear.tokenizers import Tokenizer
from gear.weights import ModelFile, open_model
from harness.contract.errors import UserError

log = logging.getLogger(__name__)


def published_initial_weights(phase: str, config: RunConfig) -> ModelFile | None:
    """The file that the configuration itself names for a stage; None when it names none.

    Raises MissingAsset when it is not on this machine: nothing is downloaded here.
    """
    source = config.stage(phase).init
    if source is None:
        return None
    path = find_asset(source, purpose=f"stage {phase} without --init", setting=f"stages.{phase}.init")
    return open_model(path)


def init_tokenizer(tokenizer: Tokenizer, losses: LossHead, init: ModelFile, config: RunConfig) -> None:
    """Give a tokenizer and its critic the weights of a warm start; the critic keeps its own where the file has none."""
    require_same_tokenizer(config, init)
    load_exactly(tokenizer, _live_tokenizer(init), source=init.source)
    if init.has("discriminator"):
        load_exactly(losses.discriminator, init.weights("discriminator"), source=f"the discriminator of {init.source}")
    else:
        log.info("%s holds no discriminator; a fresh one is trained.", init.source)


def require_discriminator(init: ModelFile, config: RunConfig) -> None:
    """Raise UserError where a stage would set an untrained critic against a trained tokenizer."""
    if config.loss.discriminator_weight and not init.has("discriminator"):
        raise UserError(
            f"stage e2e goes on with the discriminator of stage tokenizer, and {init.source} holds none; warm it up "
            "first: gear train tokenizer (or train without one: --set loss.discriminator_weight=0)."
        )


def _live_tokenizer(init: ModelFile) -> StateDict:
    """The live weights, so that the average starts from them: the published recipe.

    Lightning files (Open-MAGVIT2, IBQ) are read at their average, which is what was published of them.
    """
    averaged = init.layout == "Lightning" or "vq" not in init.parts
    return init.weights("tokenizer", ema=averaged)


def frozen_tokenizer(phase: str, config: RunConfig, source: ModelFile | None) -> Tokenizer:
    """The trained tokenizer of a stage that does not train one, averaged where the file has averages."""
    if source is None:
        raise UserError(
            f"stage {phase} needs a trained tokenizer; give its model with --tokenizer SOURCE (or --init SOURCE)."
        )
    require_same_tokenizer(config, source)
    return source.tokenizer(ema=True)


def initial_ar(phase: str, init: ModelFile) -> StateDict:
    """The AR model to go on with."""
    if not init.has("ar"):
        raise UserError(
            f"--init of stage {phase} needs an AR model, and {init.source} has none; use it as --tokenizer."
        )
    return init.weights("ar", ema=True)


def init_projectors(projectors: nn.Module, init: ModelFile) -> None:
    """Load the projectors where the file holds some; published files hold none, and the fresh ones stay."""
    if init.has("projectors"):
        load_exactly(projectors, init.weights("projectors"), source=f"the projectors of {init.source}")


def require_same_tokenizer(config: RunConfig, source: ModelFile) -> None:
    """Raise UserError, naming the field, when a file's tokenizer is another one than the configuration's."""
    theirs, ours = source.tokenizer_config.architecture(), config.tokenizer.architecture()
    for name in ours.keys() | theirs.keys():
        if theirs.get(name) != ours.get(name):
            raise UserError(
                f"the tokenizer of {source.source} has {name} = {theirs.get(name)} but the configuration says "
                f"{ours.get(name)}; train from the preset that it was trained with."
            )
