"""Facts about a model in plain types, for `gear info`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gear.ar.checkpoints import ar_name, is_text_to_image
from gear.ar.config import TrunkConfig
from gear.foreign import unusable
from gear.tokenizers.base import TokenizerConfig
from gear.tokenizers.recognise import tokenizer_name
from gear.weights.hub_layout import LazyParts
from gear.weights.loading import open_model
from gear.weights.model_file import ModelFile
from harness.contract.errors import UserError


def describe(source: str | Path, *, revision: str | None = None) -> dict[str, Any]:
    """What a file, a folder or a hub id holds: layout, architecture, parts, skipped entries, digest.

    `seal` says which checksum the content was found to match; `unusable` names tensors that are not finite.
    """
    model = open_model(source, revision=revision)
    return {
        "file": str(model.path),
        "sha256": model.digest,
        "bytes": _bytes(model),
        "seal": model.seal,
        "layout": model.layout,
        "stage": model.phase,
        "steps": model.steps,
        "tokenizer": tokenizer_line(model.tokenizer_config) if model.has("tokenizer") else None,
        "ar": _ar(model) if model.has("ar") else None,
        "image_size": model.image_size,
        "trained_with": tokenizer_line(model.trained_with) if model.has("ar") and model.trained_with else None,
        "averaged_weights": [name for name in ("vq_ema", "ema") if name in model.parts],
        "parts": {name: _size(model, name) for name in model.parts},
        "unusable": {name: found for name in model.parts if (found := unusable(model.parts[name]))},
        "left_out": dict(model.dropped),
        "settings": dict(model.settings),
        "config": None if model.config is None else json.loads(json.dumps(model.config.to_dict())),
    }


def _ar(model: ModelFile) -> str:
    """The AR model's line; for an unregistered size, whose number of heads no tensor shows, what is missing."""
    try:
        return ar_line(model.ar_config())
    except UserError as error:
        return f"not known: {error}"


def tokenizer_line(config: TokenizerConfig) -> str:
    """For example 'VQ-16: vq, 16384 codes of 8 dimensions, 16 px per token'."""
    name = tokenizer_name(config)
    groups = f" in {config.codes_per_token} groups" if config.codes_per_token > 1 else ""
    codes = f"{config.num_codes} codes of {config.code_dim} dimensions{groups}"
    return f"{name + ': ' if name else ''}{config.family}, {codes}, {config.downsample} px per token"


def ar_line(config: TrunkConfig) -> str:
    """For example 'LlamaGen-B: class-conditional, 12 blocks of width 768, 256 tokens of 16384 codes'."""
    name = ar_name(config)
    kind = "text-to-image" if is_text_to_image(config) else "class-conditional"
    shape = f"{config.n_layer} blocks of width {config.dim}, {config.block_size} tokens of {config.vocab_size} codes"
    return f"{name + ': ' if name else ''}{kind}, {shape}"


def _bytes(model: ModelFile) -> int:
    parts = model.parts
    paths = [parts.path(part) for part in parts] if isinstance(parts, LazyParts) else [model.path]
    return sum(path.stat().st_size for path in paths)


def _size(model: ModelFile, part: str) -> dict[str, int]:
    tensors = model.parts[part]
    return {"parameters": sum(tensor.numel() for tensor in tensors.values()), "tensors": len(tensors)}
