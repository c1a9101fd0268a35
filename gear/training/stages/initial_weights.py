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
    """Load the weights of a warm start into a tokenizer and its critic; a file without a critic leaves it as it is."""
    require_same_tokenizer(config, init)
    load_exactly(tokenizer, _live_tokenizer(init), source=init.source)
    if init.has("discriminator"):
        load_exactly(losses.discriminator, init.weights("discriminator"), source=f"the discriminator of {init.source}")
    else:
        log.info("%s holds no discriminator; training starts with a fresh one.", init.source)


def require_discriminator(init: ModelFile, config: RunConfig) -> None:
    """Raise UserError where a stage would train a tokenizer that is already trained against an untrained critic."""
    if config.loss.discriminator_weight and not init.has("discriminator"):
        raise UserError(
            f"stage e2e continues with the discriminator of stage tokenizer, but {init.source} holds none; warm it up "
            "first: gear train tokenizer (or train without one: --set loss.discriminator_weight=0)."
        )


def _live_tokenizer(init: ModelFile) -> StateDict:
    """The live weights, so that the average starts from them: the published recipe.

    Of Lightning files (Open-MAGVIT2, IBQ) the average is loaded, since that is what was published.
    """
    averaged = init.layout == "Lightning" or "vq" not in init.parts
    return init.weights("tokenizer", ema=averaged)


def frozen_tokenizer(phase: str, config: RunConfig, source: ModelFile | None) -> Tokenizer:
    """The frozen tokenizer of a stage, with averaged weights where the file has them."""
    if source is None:
        raise UserError(
            f"stage {phase} needs a trained tokenizer; give its model with --tokenizer SOURCE (or --init SOURCE)."
        )
    require_same_tokenizer(config, source)
    return source.tokenizer(ema=True)


def initial_ar(phase: str, init: ModelFile) -> StateDict:
    """The weights of the AR model to continue with."""
    if not init.has("ar"):
        raise UserError(
            f"--init of stage {phase} needs an AR model, but {init.source} has none; give it as --tokenizer instead."
        )
    return init.weights("ar", ema=True)


def init_projectors(projectors: nn.Module, init: ModelFile) -> None:
    """Load the projectors if the file holds some; published files hold none, and the fresh ones are kept."""
    if init.has("projectors") and any(True for _ in projectors.parameters()):  # none where nothing is aligned
        load_exactly(projectors, init.weights("projectors"), source=f"the projectors of {init.source}")


def require_same_tokenizer(config: RunConfig, source: ModelFile) -> None:
    """Raise UserError, naming the field, when a file's tokenizer differs from the configuration's."""
    theirs, ours = source.tokenizer_config.architecture(), config.tokenizer.architecture()
    for name in ours.keys() | theirs.keys():
        if theirs.get(name) != ours.get(name):
            raise UserError(
                f"the tokenizer of {source.source} has {name} = {theirs.get(name)} but the configuration says "
                f"{ours.get(name)}; use the preset that the tokenizer was trained with."
            )
