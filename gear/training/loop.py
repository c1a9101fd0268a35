"""The training loop around a stage: data, log, monitors, checkpoints, stopping and resuming. It knows no losses."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

from gear.data import workers
from gear.data.base import ImageSource
from gear.data.conditioning import class_names
from gear.data.loader import Batch, BatchSplit, batches
from gear.data.order import BatchOrder
from gear.training.checkpoint import CheckpointStore, is_finished, load_tensors, save_tensors
from gear.training.identity import claim, held
from gear.training.processes.distributed import barrier, decided_by_main, world
from gear.training.randomness import seed_micro_batch
from gear.training.stages.stage import Stage
from gear.training.stopping import noting_signals
from gear.training.watching.failures import BadSampleLog, refuse_nonfinite
from gear.training.watching.metric_queue import MetricQueue, UpdateMetrics, mean_metrics
from gear.training.watching.watch import Watch
from harness.contract.errors import EXIT_STOPPED

log = logging.getLogger(__name__)

MODEL_FILE = "model.pt"
"""The finished weights with their configuration, in the run folder; written when the last step is done."""


def fit(stage: Stage, source: ImageSource, out_dir: Path, files: dict[str, str]) -> Path:
    """Train `stage` to its last step, from the newest checkpoint in `out_dir` if there is one.

    With several processes (`gear.training.processes.distributed`) all of them call it.

    Args:
        stage: freshly built; its state is replaced when a checkpoint is found.
        source: the training images.
        out_dir: the run folder: config.json, log.jsonl, images/, checkpoints/, model.pt.
        files: digests of the files that the stage was built from; part of the run's identity.
    Returns:
        The path of the finished weights.
    Raises:
        UserError: `out_dir` holds another run, or is being trained by another process.
        EnvironmentFailure: a figure is not finite (step, terms and samples are in nonfinite.json), or a process that
            decodes images died.
        BadSamples: too many samples cannot be used.
        SystemExit: EXIT_STOPPED, after a signal and a checkpoint.
    """
    with held(out_dir):
        return _fit(stage, source, out_dir, files)


def _fit(stage: Stage, source: ImageSource, out_dir: Path, files: dict[str, str]) -> Path:
    model_path, settings = out_dir / MODEL_FILE, stage.settings
    store = CheckpointStore(out_dir / "checkpoints", settings.keep_checkpoints, settings.keep_every)
    decided_by_main(lambda: claim(out_dir, stage.phase, stage.config, files, len(source), class_names(source)))
    _resume(stage, store)
    if stage.step >= settings.steps and decided_by_main(lambda: is_finished(model_path, stage.step)):
        log.info("%s is already complete.", model_path)
        return model_path

    metrics, bad_samples = MetricQueue(stage.device), BadSampleLog(out_dir, stage.config.data.max_bad_samples)
    with (
        workers.explained(),
        noting_signals() as stop_requests,
        Watch(stage, source, out_dir, stop_requests) as watch,
    ):
        watch.run_missed_monitors()
        for micro_batches in _updates(stage, source, bad_samples, watch):
            _train_one(stage, micro_batches, metrics, watch, stop=bool(stop_requests))
            stopping = _check_and_show(metrics.rows(keep=1), watch, out_dir)
            if stopping or _has_checkpoint(stage, stage.step) or watch.measures():
                # All updates so far are checked first, so that nothing unchecked is saved.
                stopping |= _check_and_show(metrics.rows(), watch, out_dir)
                with watch.throughput.away():
                    _save(stage, store)
            if stopping and stage.step < settings.steps:
                log.warning("stopped at step %d with a checkpoint; run the same command again to resume.", stage.step)
                raise SystemExit(EXIT_STOPPED)
            watch.run_monitors()
    bad_samples.report()
    weights = stage.weights()
    if world().is_main:
        save_tensors(model_path, weights)
    barrier()
    return model_path


def _resume(stage: Stage, store: CheckpointStore) -> None:
    """Load the newest checkpoint, if there is one."""
    found = decided_by_main(store.newest)
    if found is None:
        return
    state = load_tensors(found)
    stage.load_state_dict(state)
    log.info("resuming from %s", found)
    before, now = state.get("processes", 1), world().size
    if before != now:
        log.info("with %d processes instead of %d: rounding and dropout masks differ from here on.", now, before)


def _train_one(stage: Stage, micro_batches: list[Batch], metrics: MetricQueue, watch: Watch, *, stop: bool) -> None:
    """One update; its figures go into the queue."""
    number = stage.step + 1
    logged = number == 1 or number % stage.settings.log_every == 0 or _has_checkpoint(stage, number)
    parts = []
    for part, batch in enumerate(micro_batches):
        seed_micro_batch(stage.config.seed, stage.step, part, world().rank)
        last = part == len(micro_batches) - 1
        parts.append(stage.micro_step(batch.to(stage.device), last=last, diagnose=logged and last))
    stage.finish_update()
    watch.throughput.advance(stage.settings.batch_size)
    figures = mean_metrics(parts) | (watch.throughput.look() if logged else {})
    ids = [index for batch in micro_batches for index in batch.ids.tolist()]
    metrics.put(number, figures, ids, logged=logged, stop=stop)


def _has_checkpoint(stage: Stage, step: int) -> bool:
    return step == stage.settings.steps or step % stage.settings.checkpoint_every == 0


def _check_and_show(rows: list[UpdateMetrics], watch: Watch, out_dir: Path) -> bool:
    """Check and show finished updates; returns whether any process was asked to stop."""
    for row in rows:
        refuse_nonfinite(row, out_dir)
        watch.show(row)
    return any(row.stop for row in rows)


def _save(stage: Stage, store: CheckpointStore) -> None:
    """A checkpoint, gathered by all processes and written by the main one; all processes wait until it is written."""
    state = stage.state_dict()
    if world().is_main:
        store.save(stage.step, state)
    barrier()


def _updates(stage: Stage, source: ImageSource, bad_samples: BadSampleLog, watch: Watch) -> Iterator[list[Batch]]:
    """This process's micro-batches of each remaining update."""
    settings, data = stage.settings, stage.config.data
    parts = settings.accumulation
    stream = batches(
        source,
        BatchOrder(len(source), settings.batch_size, stage.config.seed),
        start=stage.step * parts,
        stop=settings.steps * parts,
        split=BatchSplit(rank=world().rank, world_size=world().size, parts=parts),
        num_workers=data.num_workers,
        pin_memory=stage.device.type == "cuda",
    )
    for step in range(stage.step, settings.steps):
        with watch.throughput.waiting():
            update = [next(stream) for _ in range(parts)]
        bad_samples.note(step + 1, update)
        yield update
