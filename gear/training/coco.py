"""COCO while text-to-image trains: FID and CLIPScore of a fixed selection of captions, drawn by the averaged model.

The published protocol: once without guidance and once with it, top-k 2000, levels rounded and not truncated, both sides
brought to 256 px. Real and drawn images of a caption are the work of the same process; no image is counted twice to
fill the processes up, as published runs do, so the figures do not depend on their number.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from gear.ar.t2i import TextToImageAR
from gear.data.coco import CocoSelection, to_square
from gear.features.clip import ClipCosines
from gear.training.distributed import world
from gear.training.drawing import ImagesU8, models_of
from gear.training.monitors import Extractor, of_all
from gear.training.stage import Stage
from harness.contract.errors import UserError
from harness.contract.requests import Prompt, Protocol, prompt_requests
from harness.metrics.clip_score import clip_score
from harness.metrics.frechet import Statistics, frechet_distance, statistics


class CocoMonitor:
    """Opened with the run, so that a missing file is said before the first step; its networks stay on the device."""

    def __init__(self, stage: Stage, extract: Extractor) -> None:
        """extract: InceptionV3's features."""
        self.stage, self.extract, self.config = stage, extract, stage.config.watch
        config = self.config
        if not isinstance(stage.modules.get("ar"), TextToImageAR):
            raise UserError(
                f"watch.coco_every has captions drawn, which stage {stage.phase} cannot; set watch.coco_every=0."
            )
        assert config.coco_dir is not None
        self.selection = CocoSelection(Path(config.coco_dir).expanduser(), config.coco_images, config.coco_seed)
        count, me = len(self.selection), world()
        if count < max(2, me.size):
            raise UserError(
                f"{config.coco_dir} gives {count} captions, and {max(2, me.size)} are needed; raise "
                "watch.coco_images, or give more rows."
            )
        self.start, self.stop = count * me.rank // me.size, count * (me.rank + 1) // me.size
        self.cosines = ClipCosines(
            config.coco_clip, stage.device, setting="watch.coco_clip", batch_size=config.batch_size
        )
        self._reference: Statistics | None = None

    def measure(self) -> dict[str, float]:
        """`coco_fid/*` and `coco_clip/*` with * = wocfg and cfg<scale>; called by all processes."""
        reference = self._reference or self._fitted(
            self.selection.images(self.start, self.stop, self.config.coco_image_size)
        )
        self._reference = reference
        captions = self.selection.captions[self.start : self.stop]
        figures = {}
        for name, scale in self._scales().items():
            images = self._drawn(scale)
            figures[f"coco_fid/{name}"] = frechet_distance(self._fitted(images), reference).value
            figures[f"coco_clip/{name}"] = clip_score(of_all(self.cosines(images, captions)))
        return figures

    def _scales(self) -> dict[str, float]:
        scale = self.config.coco_cfg_scale
        return {"wocfg": 1.0} if scale == 1.0 else {"wocfg": 1.0, f"cfg{scale:g}": scale}

    def _fitted(self, images: ImagesU8) -> Statistics:
        """The mean is float32, as that of pytorch-fid."""
        return statistics(of_all(self.extract(images)), mean_dtype=np.float32)

    def _drawn(self, scale: float) -> ImagesU8:
        """(stop - start, S, S, 3) of this process's captions; the seeds belong to the captions' places."""
        side = self.stage.config.data.image_size
        protocol = Protocol(image_size=side, cfg_scale=scale, top_k=self.config.coco_top_k)
        prompts = [Prompt(item=f"{place:06d}", text=text) for place, text in enumerate(self.selection.captions)]
        own = prompt_requests("coco", 1, protocol, prompts=prompts).requests[self.start : self.stop]
        with models_of(self.stage, "ema") as models:
            drawn = models.draw(own, protocol, rounding="nearest")
        size = self.config.coco_image_size
        return np.stack([np.asarray(to_square(Image.fromarray(image), size)) for image in drawn])
