"""Third-party and our own checkpoints load through these functions: a file, a folder or a hub id becomes a model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gear.ar.config import TrunkConfig
from gear.ar.model import ClassConditionalAR
from gear.ar.t2i import TextToImageAR
from gear.config import RunConfig
from gear.foreign import read_weights
from gear.tokenizers import Tokenizer, TokenizerConfig
from gear.weights.hub_layout import Card, LazyParts
from gear.weights.layouts import contents_of
from gear.weights.locate import CARD_FILE, WeightsFolder, locate
from gear.weights.model_file import ModelFile


def open_model(source: str | Path, *, revision: str | None = None, preset: RunConfig | None = None) -> ModelFile:
    """Open a checkpoint, a run folder, a folder of safetensors or a hub id (`org/name`, `hf://org/name/file@revision`).

    preset: the configuration for a file that carries none and whose tensors do not determine it.
    Raises UserError when the source does not exist or its layout is unknown; MissingAsset when the hub does not answer.
    """
    where = locate(source, revision)
    if isinstance(where, WeightsFolder):
        return _from_folder(str(source), where)
    return _from_file(str(source), where, preset)


def _from_file(source: str, path: Path, preset: RunConfig | None) -> ModelFile:
    found = contents_of(read_weights(path), path)
    facts = found.facts
    steps = facts.get("steps", facts.get("global_step"))
    return ModelFile(
        source=source,
        path=path,
        layout=found.layout,
        parts=found.parts,
        original=found.original,
        dropped=found.dropped,
        phase=facts.get("phase"),
        steps=steps if isinstance(steps, int) else None,
        settings=_plain(facts.get("args")),
        run=facts["config"] if isinstance(facts.get("config"), dict) and "phase" in facts else None,
        preset=preset,
    )


def _from_folder(source: str, folder: WeightsFolder) -> ModelFile:
    card = Card.read(folder.path(CARD_FILE))
    parts = LazyParts(folder, card)
    return ModelFile(
        source=source,
        path=folder.path(CARD_FILE),
        layout="safetensors",
        parts=parts,
        original=parts,
        phase=card.phase,
        steps=card.steps,
        settings=card.settings,
        run=card.run,
        card=card,
    )


def _plain(settings: Any) -> dict[str, Any]:
    if not isinstance(settings, Mapping):
        return {}
    plain = (str, int, float, bool, type(None))
    return {str(key): value for key, value in settings.items() if isinstance(value, plain)}


def load_tokenizer(
    source: str | Path,
    *,
    ema: bool = True,
    config: TokenizerConfig | None = None,
    preset: RunConfig | None = None,
    revision: str | None = None,
) -> Tokenizer:
    """The tokenizer of any public checkpoint, in eval mode; see `open_model` and `ModelFile.tokenizer`."""
    return open_model(source, revision=revision, preset=preset).tokenizer(ema=ema, config=config)


def load_ar(
    source: str | Path,
    *,
    ema: bool = True,
    image_size: int | None = None,
    config: TrunkConfig | None = None,
    preset: RunConfig | None = None,
    revision: str | None = None,
) -> ClassConditionalAR | TextToImageAR:
    """The AR model of any public checkpoint, in eval mode; see `open_model` and `ModelFile.ar`."""
    return open_model(source, revision=revision, preset=preset).ar(ema=ema, image_size=image_size, config=config)
