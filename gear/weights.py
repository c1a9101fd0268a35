"""Models from files that `gear train` wrote: strict loading, and the configuration comes with the weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gear.ar.model import ClassConditionalAR
from gear.ar.t2i import TextCondition, TextToImageAR
from gear.config import RunConfig
from gear.foreign import load_exactly
from gear.tokenizers import Tokenizer, build_tokenizer
from gear.training.checkpoint import load_tensors
from harness.contract.digest import sha256_file
from harness.contract.errors import UserError

State = Mapping[str, Any]

PARTS = ("vq", "vq_ema", "ar", "ema", "projectors", "discriminator")
"""State dicts that a model file may hold, under the keys of the published GEAR files."""


def model_path(source: str | Path) -> Path:
    """The file that a source means: itself, or the `model.pt` of a run folder."""
    source = Path(source)
    if not source.is_dir():
        return source
    path = source / "model.pt"
    if not path.exists():
        raise UserError(f"{source} holds no model.pt: its training is not finished; run the same `gear train` again.")
    return path


def read_model(source: str | Path) -> dict[str, Any]:
    """The content of a checkpoint or `model.pt`, or of a finished run folder."""
    path = model_path(source)
    state = load_tensors(path)
    if "config" not in state:
        raise UserError(f"{path} carries no configuration, so it was not written by `gear train`; give one that was.")
    return state


def config_of(state: State) -> RunConfig:
    """The configuration that a model file carries."""
    return RunConfig.from_dict(state["config"])


def load_tokenizer(source: str | Path | State, *, ema: bool = True) -> Tokenizer:
    """The tokenizer of a model file, in eval mode. ema: prefer the averaged weights where the file has them.

    Raises UserError when the file has no tokenizer, or keys are missing or left over.
    """
    state = source if isinstance(source, Mapping) else read_model(source)
    tokenizer = build_tokenizer(config_of(state).tokenizer)
    key = _first(state, ("vq_ema", "vq") if ema else ("vq", "vq_ema"), "tokenizer")
    load_exactly(tokenizer, state[key], source=f"{key!r} of the model file")
    return tokenizer.eval()


def load_ar(source: str | Path | State, *, ema: bool = True) -> ClassConditionalAR:
    """The AR model of a model file, in eval mode; as `load_tokenizer`."""
    state = source if isinstance(source, Mapping) else read_model(source)
    ar = ClassConditionalAR(config_of(state).class_ar)
    key = _first(state, ("ema", "ar") if ema else ("ar", "ema"), "AR model")
    load_exactly(ar, state[key], source=f"{key!r} of the model file")
    return ar.eval()


def load_text_ar(source: str | Path | State, *, ema: bool = True) -> TextToImageAR:
    """The text-to-image AR model of a stage-`t2i` file, in eval mode; as `load_tokenizer`."""
    state = source if isinstance(source, Mapping) else read_model(source)
    ar = TextToImageAR(config_of(state).text_ar)
    key = _first(state, ("ema", "ar") if ema else ("ar", "ema"), "AR model")
    load_exactly(ar, state[key], source=f"{key!r} of the model file")
    return ar.eval()


def load_null_caption(state: State) -> TextCondition:
    """The empty caption as the run's text encoder gave it, one row; guidance leads away from it.

    It is stored, as what an encoder gives at fully masked positions depends on the attention kernel.
    """
    null = state[_first(state, ("null_caption",), "empty caption")]
    return TextCondition(features=null["features"], mask=null["mask"])


def _first(state: State, keys: tuple[str, ...], what: str) -> str:
    for key in keys:
        if isinstance(state.get(key), Mapping):
            return key
    raise UserError(f"the file holds no {what} (none of {', '.join(keys)}); give one of a stage that trains one.")


def describe(source: str | Path) -> dict[str, Any]:
    """Facts about a model file in plain types, for `gear info`."""
    path = model_path(source)
    state = read_model(path)
    config = config_of(state)
    tokenizer, ar = config.tokenizer, config.ar
    parts = {
        name: {"parameters": sum(tensor.numel() for tensor in state[name].values()), "tensors": len(state[name])}
        for name in PARTS
        if name in state
    }
    return {
        "file": str(path),
        "sha256": sha256_file(path),
        "bytes": path.stat().st_size,
        "stage": state.get("phase"),
        "steps": state.get("steps"),
        "tokenizer": f"{tokenizer.family}, {tokenizer.num_codes} codes of {tokenizer.code_dim} dimensions",
        "ar": f"{ar.n_layer} blocks of width {ar.dim}, {ar.block_size} tokens",
        "image_size": config.data.image_size,
        "averaged_weights": [name for name in ("vq_ema", "ema") if name in parts],
        "parts": parts,
        "config": json.loads(json.dumps(config.to_dict())),
    }
