"""What a run folder holds: the run that it was made for, and no other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gear.config import RunConfig
from harness.contract.errors import UserError
from harness.contract.files import read_json, write_json

_MAY_CHANGE = ("steps", "checkpoint_every", "keep_checkpoints", "keep_every", "log_every", "init")
_ELSEWHERE = {
    "data": ("data_dir", "num_workers", "max_bad_samples"),
    "teacher": ("weights",),
    "perceptual": ("vgg_weights", "lpips_weights"),
}


def claim(out_dir: Path, phase: str, config: RunConfig, files: dict[str, str], samples: int) -> None:
    """Write `config.json`, which says what this run is. Raises UserError where the folder holds another run.

    files: digests of the weights that it starts from and is measured by. samples: how many the training data has.
    """
    identity = {"phase": phase, "config": _identity(phase, config), "files": files, "samples": samples}
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
    """The configuration without what may change when a run goes on: its length, where files lie, how it is watched.

    A requeued job finds its images on another scratch disk. Which weights they are is said by their digests, and data
    of another length would be another order.
    """
    plain = config.to_dict()
    settings = plain.pop("stages")[phase]
    for section in ("engine", "watch"):
        plain.pop(section)
    for section, names in _ELSEWHERE.items():
        for name in names:
            plain[section].pop(name)
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
