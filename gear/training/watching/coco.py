"""COCO monitor of text-to-image training: FID and CLIPScore of a fixed set of captions, drawn by the averaged model.

The published protocol: once without guidance and once with it, top-k 2000, levels rounded and not truncated, real and
drawn images resized to 256 px. One process handles both the real and the drawn image of a caption. Published runs count
some images twice to give all processes the same number; this does not, so the figures do not depend on their number.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from gear.ar.t2i import TextToImageAR
from gear.assets import expanded, find_folder
from gear.training.processes.distributed import gather_rows, world
from gear.training.stages.stage import Stage
from gear.training.watching.drawing import ImagesU8, evaluation_models, in_batches, to_01
from gear.training.watching.monitors import Extractor, Features
from harness.contract.errors import UserError
from harness.contract.images import to_square
from harness.contract.requests import Prompt, SamplingProtocol, prompt_requests
from harness.metrics.clip_score import clip_score
from harness.metrics.frechet import Statistics, frechet_distance, statistics
from harness.scoring.coco import CocoParquet, CocoSelection
from harness.scoring.networks.clip import FILES as CLIP_FILES
from harness.scoring.networks.clip import ClipCosines


class CocoMonitor:
    """Created when the run starts, so that a missing file is reported before step 1. Its networks stay loaded."""

    def __init__(self, stage: Stage, extract: Extractor, stop_if_requested: Callable[[], None] = lambda: None) -> None:
        """extract: InceptionV3's features."""
        self.stage, self.extract, self.stop_if_requested = stage, extract, stop_if_requested
        self.config = config = stage.config.watch
        if not isinstance(stage.modules.get("ar"), TextToImageAR):
            raise UserError(
                f"watch.coco_every draws captions, which stage {stage.phase} cannot; set watch.coco_every=0."
            )
        assert config.coco_dir is not None
        dataset = CocoParquet(expanded(config.coco_dir), setting="--set watch.coco_dir=DIR")
        self.selection = CocoSelection(dataset, config.coco_images, config.coco_seed)
        count, me = len(self.selection), world()
        if count < max(2, me.size):
            raise UserError(
                f"{config.coco_dir} gives {count} captions, but {max(2, me.size)} are needed; raise "
                "watch.coco_images, or give more rows."
            )
        self.start, self.stop = count * me.rank // me.size, count * (me.rank + 1) // me.size
        clip = find_folder(config.coco_clip, CLIP_FILES, purpose="a CLIPScore", setting="watch.coco_clip")
        fix = f"name a folder with {', '.join(CLIP_FILES)}: --set watch.coco_clip=DIR."
        self.cosines = ClipCosines(clip, stage.device, fix=fix, batch_size=config.batch_size)
        self._reference: Statistics | None = None

    def measure(self) -> dict[str, float]:
        """`coco_fid/*` and `coco_clip/*` with * = wocfg and cfg<scale>; called by all processes."""
        self._reference = self._reference or _fitted(self._real())
        figures = {}
        for name, scale in self._scales().items():
            features, cosines = self._drawn(scale)
            figures[f"coco_fid/{name}"] = frechet_distance(_fitted(features), self._reference).value
            figures[f"coco_clip/{name}"] = clip_score(_of_all(cosines))
        return figures

    def _scales(self) -> dict[str, float]:
        scale = self.config.coco_cfg_scale
        return {"wocfg": 1.0} if scale == 1.0 else {"wocfg": 1.0, f"cfg{scale:g}": scale}

    def _real(self) -> Features:
        """Features of this process's real images. All are read at once, since each read is a pass over all files."""
        images = self.selection.images(self.start, self.stop, self.config.coco_image_size)
        batches = in_batches(range(len(images)), self.config.batch_size, self.stop_if_requested)
        return np.concatenate([self.extract(to_01(images[list(batch)])) for batch in batches if batch])

    def _drawn(self, scale: float) -> tuple[Features, npt.NDArray[np.float64]]:
        """Features and cosines of this process's captions; the seeds follow from the captions' positions."""
        side, size = self.stage.config.data.image_size, self.config.coco_image_size
        protocol = SamplingProtocol(image_size=side, cfg_scale=scale, top_k=self.config.coco_top_k)
        prompts = [Prompt(item=f"{place:06d}", text=text) for place, text in enumerate(self.selection.captions)]
        own = prompt_requests("coco", 1, protocol, prompts=prompts).requests[self.start : self.stop]
        features, cosines = [], []
        with evaluation_models(self.stage, "ema") as models:
            engine = models.engine(protocol, rounding="nearest")
            for tile in in_batches(own, engine.tile, self.stop_if_requested):
                if tile:
                    images = _squares(engine.images_u8(engine.tokens(tile)), size)
                    features.append(self.extract(to_01(images)))
                    cosines.append(self.cosines(images, [request.prompt or "" for request in tile]))
        return np.concatenate(features), np.concatenate(cosines)


def _squares(images_u8: ImagesU8, size: int) -> ImagesU8:
    return np.stack([np.asarray(to_square(Image.fromarray(image), size)) for image in images_u8])


def _fitted(features: Features) -> Statistics:
    """Statistics of the features of all processes. The mean is float32, as in pytorch-fid."""
    return statistics(_of_all(features), mean_dtype=np.float32)


def _of_all(rows: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """The rows of all processes in the order of ranks; called by all."""
    return gather_rows(torch.from_numpy(rows)).numpy()
