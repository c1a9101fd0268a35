"""Checkpoints of a training run: written atomically, verified when read, pruned.

`<run>/checkpoints/0000500.pt` holds tensors and plain Python objects only. `0000500.json` beside it is written after
it and holds its sha256: a checkpoint without that file, or with another hash, is never used. A run resumes from the
newest intact one.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gear.foreign import read_weights
from harness.contract.digest import sha256_file
from harness.contract.errors import UserError
from harness.contract.files import read_json, remove_stale_partials, write_atomically, write_json

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CheckpointStore:
    """The checkpoints of one run. keep: number of newest ones to keep; every: its multiples are kept too (0: none)."""

    folder: Path
    keep: int = 2
    every: int = 0

    def save(self, step: int, state: dict[str, Any]) -> Path:
        """Write the checkpoint of `step`, and delete older ones that are not to be kept."""
        path = self.folder / f"{step:07d}.pt"
        self.folder.mkdir(parents=True, exist_ok=True)
        remove_stale_partials(self.folder)  # what a killed process was writing
        save_tensors(path, state)
        write_json(path.with_suffix(".json"), {"step": step, "sha256": sha256_file(path), "bytes": path.stat().st_size})
        self._prune(step)
        return path

    def newest(self) -> Path | None:
        """The newest intact checkpoint; damaged ones are reported and skipped."""
        for path in reversed(self._paths()):
            problem = self._problem(path)
            if problem is None:
                return path
            log.warning("%s is not used: %s; going back to the checkpoint before it.", path, problem)
        return None

    def _prune(self, step: int) -> None:
        # One with a later step is damaged, or the run would have resumed from it: it does not count here.
        for path in [path for path in self._paths() if int(path.stem) <= step][: -self.keep]:
            if self.every == 0 or int(path.stem) % self.every != 0:
                path.with_suffix(".json").unlink(missing_ok=True)  # the hash first: data without a hash are never used
                path.unlink()

    def _paths(self) -> list[Path]:
        return sorted(path for path in self.folder.glob("*.pt") if re.fullmatch(r"\d{7,}", path.stem))

    @staticmethod
    def _problem(path: Path) -> str | None:
        seal = path.with_suffix(".json")
        if not seal.exists():
            return f"{seal.name} is missing, so it was not finished"
        try:
            expected = read_json(seal)["sha256"]
        except (UserError, KeyError, TypeError, ValueError):
            return f"{seal.name} is damaged"
        return None if sha256_file(path) == expected else "its content does not match its sha256"


def save_tensors(path: Path, state: dict[str, Any]) -> None:
    """`torch.save`, atomically. The same state gives the same bytes, whatever the file name."""
    with write_atomically(path) as stream:
        try:
            torch.save(state, stream)
        except RuntimeError as error:  # how its archive writer reports a full disk
            raise (error.__context__ if isinstance(error.__context__, OSError) else error) from None


def is_finished(path: Path, steps: int) -> bool:
    """Whether the model file of a run is there, undamaged and of this step; damage is reported."""
    if not path.exists():
        return False
    try:
        content = read_weights(path, plain_only=True)
    except UserError as error:
        log.warning("%s; it is written again from the checkpoint.", error)
        return False
    return isinstance(content, dict) and content.get("steps") == steps


def load_tensors(path: Path) -> dict[str, Any]:
    """Tensors and plain objects of a `.pt` file; nothing in it is executed.

    Raises UserError when the file is missing, damaged, or holds anything but tensors and plain Python objects.
    """
    state = read_weights(path, plain_only=True, mapped=False)
    if not isinstance(state, dict):
        raise UserError(f"{path} holds a {type(state).__name__}, not a dictionary of tensors; give a checkpoint.")
    return state
