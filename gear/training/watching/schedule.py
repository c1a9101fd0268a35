"""When pictures are drawn and quality is measured, and of what data."""

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
class Plan:
    """What is measured, and how often."""

    monitor: CocoMonitor | GenerationMonitor | ReconstructionMonitor
    every: int
    prefix: str
    """Of the names of its figures, and of no other's."""
    from_start: bool = False
    """Whether it is due after the first update, too."""


class Album:
    """The grids and monitors of a run. Networks and data are opened when they are first due, their absence is said at
    once."""

    def __init__(
        self, stage: Stage, source: ImageSource, out_dir: Path, leave_if_asked: Callable[[], None] = lambda: None
    ) -> None:
        """leave_if_asked: called by all processes between the batches of a monitor; it may end them."""
        self.stage, self.source, self.out_dir = stage, source, out_dir
        self.config = stage.config.watch
        self.validation = validation_source(stage.config)
        if self.config.reconstruction_every and self.validation is None:
            raise UserError(
                "watch.reconstruction_every asks for reconstruction metrics, but there are no validation images; set "
                "watch.validation_dir=DIR, or watch.reconstruction_every=0."
            )
        self._plans = list(self._planned(leave_if_asked))

    def _planned(self, leave_if_asked: Callable[[], None]) -> Iterator[Plan]:
        config, stage = self.config, self.stage
        draws = config.generation_every > 0 and "ar" in stage.modules
        if not (draws or config.reconstruction_every or config.coco_every):
            return
        extract = build_extractor(config, stage.device)
        if draws:
            generation = GenerationMonitor(stage, self.source, extract, leave_if_asked)
            yield Plan(monitor=generation, every=config.generation_every, prefix="generation/")
        if config.reconstruction_every and self.validation is not None:
            reconstruction = ReconstructionMonitor(stage, self.validation, extract, leave_if_asked)
            every = config.reconstruction_every
            yield Plan(monitor=reconstruction, every=every, prefix="vq_val/", from_start=config.at_step_1)
        if config.coco_every:
            coco = CocoMonitor(stage, extract, leave_if_asked)
            yield Plan(monitor=coco, every=config.coco_every, prefix="coco_fid/")

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
        return any(self._due(plan.every, plan.from_start) for plan in self._plans)

    def measurements(self, known: Collection[str] = ()) -> Iterator[dict[str, float]]:
        """The figures of each monitor that is due, once it has them; not of those whose figures are `known`."""
        for plan in self._plans:
            if self._due(plan.every, plan.from_start) and not any(name.startswith(plan.prefix) for name in known):
                yield plan.monitor.measure()

    def _due(self, every: int, from_start: bool) -> bool:
        step = self.stage.step
        return every > 0 and step > 0 and (step % every == 0 or (from_start and step == 1))


def validation_source(config: RunConfig) -> ImageSource | None:
    """Images that are not trained on: `watch.validation_dir`, or the held-out split of the digits."""
    if config.watch.validation_dir is not None:
        data = dataclasses.replace(config.data, kind="auto", data_dir=config.watch.validation_dir, data_probs="")
        return open_source(data, train=False)
    return open_source(config.data, train=False) if config.data.kind.endswith("digits") else None
