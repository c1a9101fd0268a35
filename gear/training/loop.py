"""The loop around a stage: data, log, progress, checkpoints, stopping and going on. It knows no loss."""

from __future__ import annotations

import logging
import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from gear.data.loader import Batch, batches
from gear.data.order import BatchOrder
from gear.data.sources import ImageSource
from gear.training.checkpoint import CheckpointStore, save_tensors
from gear.training.stage import Stage
from gear.training.tracking import JsonlLog, Meter, to_numbers
from harness.contract.errors import EnvironmentFailure, UserError
from harness.contract.files import read_json, write_json

log = logging.getLogger(__name__)

EXIT_INTERRUPTED = 75
"""Exit status after a saved SIGTERM, SIGINT or SIGUSR1 (sysexits' EX_TEMPFAIL): the same command goes on."""

MODEL_FILE = "model.pt"
"""The finished weights with their configuration, in the run folder; written when the last step is done."""


def fit(stage: Stage, source: ImageSource, out_dir: Path, started_from: dict[str, str]) -> Path:
    """Train `stage` to its last step, from the newest checkpoint in `out_dir` if there is one.

    Args:
        stage: freshly built; its state is replaced when a checkpoint is found.
        source: the training images.
        out_dir: the run folder: config.json, log.jsonl, checkpoints/, model.pt.
        started_from: digests of the files that the stage was built from; part of the run's identity.
    Returns:
        The path of the finished weights.
    Raises:
        UserError: `out_dir` holds another run.
        EnvironmentFailure: a loss is not finite; the step and the samples are named and the last checkpoint is kept.
        SystemExit: EXIT_INTERRUPTED, after a signal and a checkpoint.
    """
    model_path, settings = out_dir / MODEL_FILE, stage.settings
    _claim(out_dir, stage, started_from)
    store = CheckpointStore(out_dir / "checkpoints", settings.keep_checkpoints)
    found = store.newest()
    if found is not None:
        stage.load_state_dict(found[1])
        if stage.step >= settings.steps and model_path.exists():
            log.info("%s is already complete.", model_path)
            return model_path
        log.info("going on from %s", found[0])
    journal = JsonlLog(out_dir / "log.jsonl", after_step=stage.step)
    meter = Meter(stage.phase, settings.steps, stage.step)

    with _signals() as interrupted:
        for update in _updates(stage, source):
            values = _train_one(stage, update, settings.log_every)
            meter.advance(settings.batch_size, values.get(stage.headline))
            if values:
                when = {"step": stage.step, "phase": stage.phase, "time_s": time.time()}
                journal.write({**when, "images_per_s": meter.images_per_s, **values})
            if interrupted or stage.step % settings.checkpoint_every == 0 or stage.step == settings.steps:
                store.save(stage.step, stage.state_dict())
            if interrupted:
                meter.close()
                journal.close()
                log.warning("stopped at step %d with a checkpoint; the same command goes on from there.", stage.step)
                raise SystemExit(EXIT_INTERRUPTED)
    meter.close()
    journal.close()
    save_tensors(model_path, stage.weights())
    return model_path


def _train_one(stage: Stage, micro_batches: list[Batch], log_every: int) -> dict[str, float]:
    """One update. Returns its figures when the step is one that is logged, else nothing.

    A step that has a checkpoint is always logged, so that nothing is saved whose losses were not looked at.
    """
    number, settings = stage.step + 1, stage.settings
    logged = number in (1, settings.steps) or number % log_every == 0 or number % settings.checkpoint_every == 0
    logs = {}
    for part, batch in enumerate(micro_batches, start=1):
        last = part == len(micro_batches)
        logs = stage.micro_step(batch.to(stage.device), last=last, diagnose=logged and last)
    stage.finish_update()
    if not logged:
        return {}
    values = to_numbers(logs)
    wrong = sorted(name for name, value in values.items() if not math.isfinite(value))
    if wrong:
        ids = torch.cat([batch.ids for batch in micro_batches]).tolist()
        raise EnvironmentFailure(
            f"{wrong[0]} is {values[wrong[0]]} at step {stage.step} (samples {ids[:8]}...); the run stopped before "
            "saving it. Lower the learning rate or go on from the last checkpoint with other settings."
        )
    return values


def _updates(stage: Stage, source: ImageSource) -> Iterator[list[Batch]]:
    """The micro-batches of each remaining update."""
    settings, parts = stage.settings, stage.settings.accumulation
    order = BatchOrder(len(source), settings.batch_size // parts, stage.config.seed)
    stream = batches(
        source,
        order,
        start=stage.step * parts,
        stop=settings.steps * parts,
        num_workers=stage.config.data.num_workers,
        pin_memory=stage.device.type == "cuda",
    )
    for _ in range(stage.step, settings.steps):
        yield [next(stream) for _ in range(parts)]


def _claim(out_dir: Path, stage: Stage, started_from: dict[str, str]) -> None:
    """Write what this run is, or refuse a folder that holds another one."""
    identity = {"phase": stage.phase, "config": _identity(stage), "started_from": started_from}
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


_MAY_CHANGE = ("steps", "checkpoint_every", "keep_checkpoints", "log_every")


def _identity(stage: Stage) -> dict[str, Any]:
    """The configuration without what may change when a run goes on: its length, how it is logged, other stages."""
    config = stage.config.to_dict()
    settings = config.pop("stages")[stage.phase]
    config["data"].pop("num_workers")
    config["stage"] = {name: value for name, value in settings.items() if name not in _MAY_CHANGE}
    return config


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


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collects SIGTERM, SIGINT and SIGUSR1 (Slurm's warning) instead of dying from them; a second SIGINT interrupts."""
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and received:
            raise KeyboardInterrupt
        received.append(number)

    caught = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
    before = {number: signal.signal(number, note) for number in caught}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
