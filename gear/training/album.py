"""When pictures are drawn and quality is measured, and of what data."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from gear.config import RunConfig
from gear.data.base import ImageSource
from gear.data.sources import open_source
from gear.training.coco import CocoMonitor
from gear.training.grids import reconstruction_grid, sample_grid, save_png
from gear.training.monitors import GenerationMonitor, ReconstructionMonitor, build_extractor
from gear.training.stage import Stage
from gear.training.trackers import Image
from harness.contract.errors import UserError


class Album:
    """The grids and monitors of a run. Networks and data are opened when they are first due, their absence is said at
    once."""

    def __init__(self, stage: Stage, source: ImageSource, out_dir: Path) -> None:
        self.stage, self.source, self.out_dir = stage, source, out_dir
        self.config = stage.config.watch
        self.validation = validation_source(stage.config)
        if self.config.reconstruction_every and self.validation is None:
            raise UserError(
                "watch.reconstruction_every asks for reconstruction metrics, but there are no validation images; set "
                "watch.validation_dir=DIR, or watch.reconstruction_every=0."
            )
        watches_samples = self.config.generation_every > 0 and "ar" in stage.modules
        extract = (
            build_extractor(self.config, stage.device)
            if watches_samples or self.config.reconstruction_every or self.config.coco_every
            else None
        )
        self._generation = GenerationMonitor(stage, source, extract) if extract and watches_samples else None
        self._reconstruction = (
            ReconstructionMonitor(stage, self.validation, extract) if extract and self.validation is not None else None
        )
        self._coco = CocoMonitor(stage, extract) if extract and self.config.coco_every else None

    def grids(self) -> dict[str, Image]:
        """The grids that are due, by name; they are also written to `images/` in the run folder."""
        if not self._due(self.config.grids_every):
            return {}
        drawn = {
            "samples": sample_grid(self.stage, self.validation or self.source),
            "reconstructions": reconstruction_grid(self.stage, self.validation or self.source),
        }
        images = {name: image for name, image in drawn.items() if image is not None}
        for name, image in images.items():
            save_png(image, self.out_dir / "images" / f"{self.stage.step:07d}-{name}.png")
        return images

    def measurements(self) -> dict[str, float]:
        """The figures of the monitors that are due."""
        figures: dict[str, float] = {}
        if self._generation is not None and self._due(self.config.generation_every):
            figures |= self._generation.measure()
        if self._reconstruction is not None and self._due(self.config.reconstruction_every):
            figures |= self._reconstruction.measure()
        if self._coco is not None and self._due(self.config.coco_every):
            figures |= self._coco.measure()
        return figures

    def _due(self, every: int) -> bool:
        return every > 0 and self.stage.step % every == 0


def validation_source(config: RunConfig) -> ImageSource | None:
    """Images that are not trained on: `watch.validation_dir`, or the held-out split of the digits."""
    if config.watch.validation_dir is not None:
        data = dataclasses.replace(config.data, kind="auto", data_dir=config.watch.validation_dir, data_probs="")
        return open_source(data, train=False)
    return open_source(config.data, train=False) if config.data.kind.endswith("digits") else None
