"""What a run folder holds: the run that it was made for, and no other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gear.config import RunConfig
from harness.contract.errors import UserError
from harness.contract.files import read_json, write_json

_MAY_CHANGE = ("steps", "checkpoint_every", "keep_checkpoints", "keep_every", "log_every")


def claim(out_dir: Path, phase: str, config: RunConfig, started_from: dict[str, str]) -> None:
    """Write `config.json`, which says what this run is. Raises UserError where the folder holds another run."""
    identity = {"phase": phase, "config": _identity(phase, config), "started_from": started_from}
    path = out_dir / "config.json"
    if not path.exists():
        out_dir.mkdir(parents=True, exist_ok=True)
        write_json(path, identity)
        return
    difference = _first_difference(read_json(path), identity)
    if difference is not None:
        raise UserError(
            f"{out_dir} holds another run (it differs in {difference}); give another --out, or delete that folder."
        )


def _identity(phase: str, config: RunConfig) -> dict[str, Any]:
    """The configuration without what may change when a run goes on: its length, how it is computed and watched."""
    plain = config.to_dict()
    settings = plain.pop("stages")[phase]
    for name in ("num_workers", "max_bad_samples"):
        plain["data"].pop(name)
    for section in ("engine", "watch"):
        plain.pop(section)
    may_change = set(_MAY_CHANGE)
    if any(settings[name]["schedule"] != "constant" for name in ("tokenizer", "discriminator", "ar")):
        may_change.remove("steps")  # a learning rate that ends with the run has depended on its length all along
    plain["stage"] = {name: value for name, value in settings.items() if name not in may_change}
    return plain


def _first_difference(old: object, new: object, where: str = "") -> str | None:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            difference = _first_difference(old.get(key), new.get(key), f"{where}.{key}" if where else str(key))
            if difference is not None:
                return difference
        return None
    if isinstance(new, tuple):
        new = list(new)
    return None if old == new else f"{where}: {old} there, {new} now"
