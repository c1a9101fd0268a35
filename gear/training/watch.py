"""Everything one watches, in one place: log.jsonl, trackers, the progress bar, pictures and monitors.

Figures and pictures come from the main process; monitors are the work of all.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from gear.data.base import ImageSource
from gear.training.album import Album
from gear.training.distributed import world
from gear.training.flops import flops_per_image
from gear.training.recorder import Row
from gear.training.stage import Stage
from gear.training.throughput import Throughput, peak_tflops
from gear.training.trackers import Tracker, open_trackers
from gear.training.tracking import JsonlLog, Meter


class Watch:
    """Opened for a run at the step it goes on from; a context manager."""

    def __init__(self, stage: Stage, source: ImageSource, out_dir: Path) -> None:
        self.stage, self.out_dir = stage, out_dir
        self.album = Album(stage, source, out_dir)
        self._trackers: list[Tracker] = []
        self._journal: JsonlLog | None = None
        self._meter: Meter | None = None
        config = stage.config
        self.throughput = Throughput(
            stage.device,
            tokens_per_image=config.tokenizer.tokens(config.data.image_size),
            flops_per_image=flops_per_image(stage),
            peak_tflops=peak_tflops(stage.device, config.watch.peak_tflops),
        )
        if world().is_main:
            self._journal = JsonlLog(out_dir / "log.jsonl", after_step=stage.step)
            self._trackers = open_trackers(config, out_dir, stage.step)
            self._meter = Meter(stage.phase, stage.settings.steps, stage.step)

    def show(self, row: Row) -> None:
        """One update that was looked at: moves the bar, and writes the figures of a logged one."""
        if self._meter is not None:
            self._meter.advance(self.stage.settings.batch_size, row.values.get(self.stage.headline))
        if row.logged:
            self.write(row.step, row.values)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Figures of a step, to the log and the trackers."""
        if self._journal is None:
            return
        self._journal.write({"step": step, "phase": self.stage.phase, "time_s": time.time(), **values})
        for tracker in self._trackers:
            tracker.log(step, values)

    def pictures(self) -> None:
        """Grids and monitors that are due at this step, to files, log and trackers; called by all processes."""
        step = self.stage.step
        with self.throughput.away():
            for name, image in self.album.grids().items():
                for tracker in self._trackers:
                    tracker.image(step, name, image)
            figures = self.album.measurements()
            if figures:
                self.write(step, figures)

    def __enter__(self) -> Watch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._meter is not None:
            self._meter.close()
        if self._journal is not None:
            self._journal.close()
        for tracker in self._trackers:
            tracker.close()
