"""Published models and tokenizers by name (released.yaml), and the files behind every preset."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from gear.assets import listed_asset, listed_assets
from harness.catalog.assets import Asset
from harness.contract.errors import UserError
from harness.contract.fields import build
from harness.contract.yaml import read_yaml

_LIST = Path(__file__).with_name("released.yaml")


@dataclass(frozen=True, kw_only=True)
class Released:
    """One published model or tokenizer."""

    name: str
    about: str
    """One line for a person, with the source."""
    assets: Mapping[str, str]
    """What `gear` is given -> the asset: "ckpt", "vq-ckpt" and "text-encoder" of a model, or "tokenizer"."""
    draw: Mapping[str, str] = field(default_factory=dict)
    """Options of `gear sample`."""
    protocol: Mapping[str, Any] = field(default_factory=dict)
    """How it is drawn where that differs from a benchmark's protocol."""


@cache
def all_released() -> Mapping[str, Released]:
    """Everything in released.yaml, by name."""
    rows = read_yaml(_LIST)
    return {name: build(Released, {"name": name, **row}, str(_LIST), path=name) for name, row in rows.items()}


def released(name: str) -> Released:
    """The published model called `name`; UserError when there is none."""
    found = all_released()
    if name in found:
        return found[name]
    if _is_configuration(name):
        raise UserError(
            f"--preset {name}: is a configuration to train with, and no published model; give the model that you "
            f"trained with --ckpt, or one of {', '.join(found)}."
        )
    raise _unknown(name)


def needed_assets(name: str) -> tuple[Asset, ...]:
    """The listed files of a published model, or of a configuration of `gear train`.

    Raises:
        UserError: there is no such preset, or it names files of the user's own.
    """
    if name in all_released():
        return tuple(listed_assets()[asset] for asset in released(name).assets.values())
    if not _is_configuration(name):
        raise _unknown(name)
    from gear.config import load_config  # imports torch
    from gear.required_files import required_files

    needed = {need.source: listed_asset(need.source) for need in required_files(load_config(name))}
    return tuple(dict.fromkeys(asset for asset in needed.values() if asset is not None))


def _is_configuration(name: str) -> bool:
    from gear.presets import read_preset

    try:
        read_preset(name)
    except UserError:
        return False
    return True


def _unknown(name: str) -> UserError:
    from gear.presets import families, single_presets

    known = [*all_released(), *single_presets(), *(family.stem for family in families())]
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"published are: {', '.join(all_released())}."
    return UserError(f"--preset {name}: there is no preset of that name; {hint}")
