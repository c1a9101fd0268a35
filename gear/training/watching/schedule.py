"""When pictures are drawn and quality is measured, and on which data."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from gear.config import RunConfig
from gear.data.base import ImageSource
from gear.data.sources import open_source
from gear.training.stages.stage import Stage
from gear.training.watching.coco import CocoMonitor
from gear.training.watching.grids import reconstruction_grid, sample_grid, save_png
from gear.training.watching.monitors import GenerationMonitor, ReconstructionMonitor, build_extractor
from gear.training.watching.trackers import Image
from harness.contract.errors import UserError


@dataclass(frozen=True, kw_only=True)
class ScheduledMonitor:
    """A monitor, and how often it measures."""

    monitor: CocoMonitor | GenerationMonitor | ReconstructionMonitor
    every: int
    prefix: str
    """Prefix of the names of its figures, and of no other monitor's."""
    from_start: bool = False
    """Whether it is also due after the first update."""


class Monitoring:
    """The grids and monitors of a run.

    Networks and data are loaded when first due; a missing file is reported when the run starts.
    """

    def __init__(
        self, stage: Stage, source: ImageSource, out_dir: Path, stop_if_requested: Callable[[], None] = lambda: None
    ) -> None:
        """stop_if_requested: called by all processes between the batches of a monitor; it may end the processes."""
        self.stage, self.source, self.out_dir = stage, source, out_dir
        self.config = stage.config.watch
        self.validation = validation_source(stage.config)
        if self.config.reconstruction_every and self.validation is None:
            raise UserError(
                "watch.reconstruction_every is set, but there are no validation images; set "
                "watch.validation_dir=DIR, or watch.reconstruction_every=0."
            )
        self._scheduled = list(self._schedule(stop_if_requested))

    def _schedule(self, stop_if_requested: Callable[[], None]) -> Iterator[ScheduledMonitor]:
        config, stage = self.config, self.stage
        draws = config.generation_every > 0 and "ar" in stage.modules
        if not (draws or config.reconstruction_every or config.coco_every):
            return
        extract = build_extractor(config, stage.device)
        if draws:
            generation = GenerationMonitor(stage, self.source, extract, stop_if_requested)
            yield ScheduledMonitor(monitor=generation, every=config.generation_every, prefix="generation/")
        if config.reconstruction_every and self.validation is not None:
            reconstruction = ReconstructionMonitor(stage, self.validation, extract, stop_if_requested)
            every = config.reconstruction_every
            yield ScheduledMonitor(monitor=reconstruction, every=every, prefix="vq_val/", from_start=config.at_step_1)
        if config.coco_every:
            coco = CocoMonitor(stage, extract, stop_if_requested)
            yield ScheduledMonitor(monitor=coco, every=config.coco_every, prefix="coco_fid/")

    def grids(self) -> dict[str, Image]:
        """The grids that are due, by name; they are also written to `images/` in the run folder."""
        if not self._due(self.config.grids_every, self.config.at_step_1):
            return {}
        drawn = {
            "samples": sample_grid(self.stage, self.validation or self.source),
            "reconstructions": reconstruction_grid(self.stage, self.validation or self.source),
        }
        images = {name: image for name, image in drawn.items() if image is not None}
        for name, image in images.items():
            save_png(image, self.out_dir / "images" / f"{self.stage.step:07d}-{name}.png")
        return images

    def measures(self) -> bool:
        """Whether a monitor is due."""
        return any(self._due(scheduled.every, scheduled.from_start) for scheduled in self._scheduled)

    def measurements(self, known: Collection[str] = ()) -> Iterator[dict[str, float]]:
        """The figures of each monitor that is due, as soon as it has them; skips monitors whose figures are `known`."""
        for scheduled in self._scheduled:
            if self._due(scheduled.every, scheduled.from_start) and not any(
                name.startswith(scheduled.prefix) for name in known
            ):
                yield scheduled.monitor.measure()

    def _due(self, every: int, from_start: bool) -> bool:
        step = self.stage.step
        return every > 0 and step > 0 and (step % every == 0 or (from_start and step == 1))


def validation_source(config: RunConfig) -> ImageSource | None:
    """Images that are not trained on: `watch.validation_dir`, or the held-out split of the digits."""
    if config.watch.validation_dir is not None:
        data = dataclasses.replace(config.data, kind="auto", data_dir=config.watch.validation_dir, data_probs="")
        return open_source(data, train=False)
    return open_source(config.data, train=False) if config.data.kind.endswith("digits") else None
