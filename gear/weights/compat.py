"""Files of `gear train` as plain dictionaries, for callers that do not open them as a ModelFile yet."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gear.config import RunConfig
from gear.weights.locate import locate
from gear.weights.model_file import open_model
from harness.contract.errors import UserError


def model_path(source: str | Path) -> Path:
    """The file that a source means: itself, or the `model.pt` of a run folder."""
    where = locate(source)
    if not isinstance(where, Path):
        raise UserError(f"{source} is a folder of safetensors; give the .pt file it was converted from.")
    return where


def read_model(source: str | Path) -> dict[str, Any]:
    """The weights and the configuration of a file or run folder that `gear train` wrote."""
    model = open_model(source)
    if model.run is None:
        raise UserError(f"{source} carries no configuration, so it was not written by `gear train`; give one that was.")
    return {**model.parts, "config": model.run, "phase": model.phase, "steps": model.steps}


def config_of(state: Mapping[str, Any]) -> RunConfig:
    """The configuration that a model file carries."""
    return RunConfig.from_dict(state["config"])
