"""All outputs that show a run: log.jsonl, trackers, the progress bar, pictures and monitors.

The main process writes figures and pictures; all processes work on the monitors.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Collection, Mapping, Sized
from pathlib import Path
from types import TracebackType

from gear.data.base import ImageSource
from gear.training.processes.distributed import decided_by_main, gather_objects, world
from gear.training.stages.stage import Stage
from gear.training.watching.flops import flops_per_image
from gear.training.watching.metric_queue import UpdateMetrics
from gear.training.watching.schedule import Monitoring
from gear.training.watching.throughput import Throughput, peak_tflops
from gear.training.watching.trackers import Tracker, open_trackers
from gear.training.watching.tracking import JsonlLog, Meter
from harness.contract.errors import EXIT_STOPPED

log = logging.getLogger(__name__)


class Watch:
    """A context manager, opened at the step that a run starts or resumes from."""

    def __init__(self, stage: Stage, source: ImageSource, out_dir: Path, stop_requests: Sized = ()) -> None:
        """stop_requests: non-empty once this process was asked to stop."""
        self.stage, self.out_dir, self.stop_requests = stage, out_dir, stop_requests
        self.monitoring = Monitoring(stage, source, out_dir, self._stop_if_requested)
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

    def show(self, row: UpdateMetrics) -> None:
        """Show one checked update: advance the bar, and write the figures if it is a logged one."""
        if self._meter is not None:
            self._meter.advance(self.stage.settings.batch_size, row.values.get(self.stage.headline))
        if row.logged:
            self.write(row.step, row.values)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Write figures of a step to the log and the trackers."""
        if self._journal is None:
            return
        self._journal.write({"step": step, "phase": self.stage.phase, "time_s": time.time(), **values})
        for tracker in self._trackers:
            tracker.log(step, values)

    def measures(self) -> bool:
        """Whether a monitor is due at this step. It may take long and end the run: a checkpoint must exist by then."""
        return self.monitoring.measures()

    def run_monitors(self) -> None:
        """Grids and monitors that are due at this step, to files, log and trackers; called by all processes."""
        with self.throughput.away():
            self._grids()
            self._measure()

    def run_missed_monitors(self) -> None:
        """Run what was due at the step that the run resumes from and was not done before it stopped."""
        with self.throughput.away():
            if not decided_by_main(lambda: any((self.out_dir / "images").glob(f"{self.stage.step:07d}-*.png"))):
                self._grids()
            if self.measures():
                self._measure(known=decided_by_main(self._logged))

    def _grids(self) -> None:
        for name, image in self.monitoring.grids().items():
            for tracker in self._trackers:
                tracker.image(self.stage.step, name, image)

    def _measure(self, known: Collection[str] = ()) -> None:
        for figures in self.monitoring.measurements(known):
            self.write(self.stage.step, figures)

    def _logged(self) -> set[str]:
        """The names in the log of this step."""
        with (self.out_dir / "log.jsonl").open(encoding="utf-8") as lines:
            rows = [json.loads(line) for line in lines]
        return {name for row in rows if row["step"] == self.stage.step for name in row}

    def _stop_if_requested(self) -> None:
        if any(gather_objects(bool(self.stop_requests))):
            log.warning(
                "stopped measuring step %d, which has a checkpoint; the same command repeats the measurement.",
                self.stage.step,
            )
            raise SystemExit(EXIT_STOPPED)

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
