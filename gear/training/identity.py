"""The identity of a run: a run folder only ever holds the run that it was made for."""

from __future__ import annotations

import fcntl
import logging
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from gear.config import RunConfig
from gear.training.processes.distributed import decided_by_main
from gear.weights.locate import RUN_FILE
from harness.contract.errors import UserError
from harness.contract.files import read_json, write_json

log = logging.getLogger(__name__)

_LOCK_FILE = ".lock"
"""Locked while a run trains, with a line that says who does."""

_UNUSED = {
    "tokenizer": ("ar", "gear", "teacher", "text"),
    "e2e": (),
    "ar": ("discriminator", "loss", "perceptual"),
    "t2i": ("discriminator", "loss", "perceptual"),
}
"""Sections of a configuration that a stage never reads: runs that differ only in these are the same run."""
_ELSEWHERE = {
    "data": ("data_dir", "num_workers", "max_bad_samples"),
    "teacher": ("weights",),
    "perceptual": ("vgg_weights", "lpips_weights"),
    "text": ("source", "revision"),
}
_MAY_CHANGE = {"steps", "accumulation", "checkpoint_every", "keep_checkpoints", "keep_every", "log_every", "init"}
_CHANGEABLE = (
    "max_grad_norm",
    *(f"{name}.{field}" for name in ("tokenizer", "discriminator", "ar") for field in ("lr", "warmup_steps")),
)
"""Settings that are changed after a loss diverged: an unfinished run may continue with other values, with a warning."""


def claim(
    out_dir: Path, phase: str, config: RunConfig, files: dict[str, str], samples: int, classes: Sequence[str] = ()
) -> None:
    """Write `config.json`, the identity of this run. Raises UserError where another run has begun in the folder.

    files: digests of the weights that it starts from and is measured with. samples: how many the training data has.
    classes: the names of its classes, since a folder more or less gives all later ones other labels.
    """
    identity = {"phase": phase, "config": _identity(phase, config), "files": files, "samples": samples}
    if classes:
        identity["classes"] = list(classes)
    path = out_dir / "config.json"
    if path.exists() and has_begun(out_dir):
        before = {"classes": identity.get("classes"), **read_json(path), "name": None}  # older files have no classes
        differences = dict(_differences(before, identity))
        changeable = () if (out_dir / RUN_FILE).exists() else _CHANGEABLE
        for where, change in differences.items():
            if where.removeprefix("config.stage.") not in changeable:
                raise UserError(
                    f"{out_dir} holds another run (it differs in {where}: {change}); "
                    "give another --out, or delete that folder."
                )
        if not differences:
            return
        for where, change in differences.items():
            log.warning("continuing with a changed %s: %s.", where.removeprefix("config."), change)
    out_dir.mkdir(parents=True, exist_ok=True)
    write_json(path, {"name": config.name, **identity})


@contextmanager
def held(out_dir: Path) -> Iterator[None]:
    """The run folder belongs to this run while it trains. Raises UserError in all processes where another one has it.

    The kernel drops the lock with the process that holds it, however that ends, so a run can be continued at once. File
    systems without locks, and folders that cannot be written, are left to themselves.
    """
    held_open: list[IO[str]] = []
    decided_by_main(lambda: _lock(out_dir / _LOCK_FILE, held_open))
    try:
        yield
    finally:
        for stream in held_open:
            stream.close()


def _lock(path: Path, held_open: list[IO[str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        stream = path.open("a+", encoding="utf-8")
    except OSError:
        return
    held_open.append(stream)
    try:
        fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)  # not flock: data-loading workers would inherit that one
    except BlockingIOError:
        stream.seek(0)
        owner = stream.read().strip() or "another process"
        stream.close()
        raise UserError(
            f"{path.parent} is being trained by {owner}; wait until that ends, or give another --out."
        ) from None
    except OSError:
        return
    stream.truncate(0)
    stream.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    stream.flush()


def has_begun(out_dir: Path) -> bool:
    """Whether a run folder holds anything that was trained: one whose command failed before that is not yet taken."""
    log_file, weights = out_dir / "log.jsonl", (out_dir / RUN_FILE, *out_dir.glob("checkpoints/*.pt"))
    return any(path.exists() for path in weights) or (log_file.exists() and log_file.stat().st_size > 0)


def _identity(phase: str, config: RunConfig) -> dict[str, Any]:
    """The configuration without what may change when a run continues: its length, where files are, how it is watched.

    A requeued job may find its images on another scratch disk. Weights are identified by their digests, and data of
    another length would have another order.
    """
    plain = config.to_dict()
    settings = plain.pop("stages")[phase]
    for section in ("name", "engine", "watch", *_UNUSED[phase]):
        plain.pop(section)
    for section, names in _ELSEWHERE.items():
        for name in names:
            (plain.get(section) or {}).pop(name, None)
    may_change = set(_MAY_CHANGE)
    if any(settings[name]["schedule"] != "constant" for name in ("tokenizer", "discriminator", "ar")):
        may_change.remove("steps")  # a rate that decays until the end depends on the run's length from the start
    plain["stage"] = {name: value for name, value in settings.items() if name not in may_change}
    return plain


def _differences(old: object, new: object, where: str = "") -> Iterator[tuple[str, str]]:
    """(field, what it was and is), in the order of fields."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            yield from _differences(old.get(key), new.get(key), f"{where}.{key}" if where else str(key))
        return
    if old != (list(new) if isinstance(new, tuple) else new):
        yield where, f"{_short(old)} there, {_short(new)} now"


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
