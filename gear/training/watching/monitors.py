"""Quality during training: Frechet distance of samples, and metrics of reconstructions, live and averaged.

The arithmetic is `harness.metrics`; the images come from the sampling engine and the validation data. Each of n
processes takes every n-th image, and of a batch only its figures and the statistics of its features are kept: a
monitor's memory does not grow with the number of images. Distances are between features of the network in
`watch.features`: only `inception` with its official weights gives numbers called FID elsewhere (and those of 5,000
images are not FID-50k: compare them within a run).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from gear.assets import find_asset
from gear.data.base import ImageSource
from gear.training.processes.distributed import gather_objects, world
from gear.training.settings import WatchConfig
from gear.training.stages.stage import Stage
from gear.training.watching.drawing import (
    EvaluationModels,
    Images01,
    ImagesU8,
    Weights,
    evaluation_models,
    fixed_choice,
    images_of,
    in_batches,
    requests_for,
    to_01,
)
from harness.contract.errors import UserError
from harness.contract.requests import Request, SamplingProtocol
from harness.metrics.frechet import Statistics, StatisticsAccumulator, frechet_distance, statistics_of
from harness.metrics.image import l1, psnr, ssim

Features = npt.NDArray[np.float32]
"""(N, D)."""
Extractor = Callable[[Images01], Features]
WEIGHTS: tuple[Weights, ...] = ("live", "ema")


def build_extractor(config: WatchConfig, device: torch.device) -> Extractor:
    """The network whose features are compared."""
    source = config.features_weights
    path = find_asset(source, purpose="a Frechet distance", setting="watch.features_weights") if source else None
    network = _lite0(path, device) if path is None or config.features == "lite0" else _inception(path, device)

    @torch.inference_mode()
    def extract(images_01: Images01) -> Features:
        parts = torch.from_numpy(images_01).split(config.batch_size)
        return torch.cat([network(part.to(device)).float().cpu() for part in parts]).numpy()

    return extract


def _inception(weights: Path, device: torch.device) -> Callable[[torch.Tensor], torch.Tensor]:
    from harness.scoring.networks.inception import InceptionV3

    return InceptionV3.from_file(weights).to(device)


def _lite0(weights: Path | None, device: torch.device) -> Callable[[torch.Tensor], torch.Tensor]:
    """Pooled features (1,280) of EfficientNet-Lite0 at 128 px."""
    from harness.scoring.networks.lite0 import load_lite0

    network = load_lite0(weights).float().to(device)

    def features(images_01: torch.Tensor) -> torch.Tensor:
        resized = F.interpolate(images_01, size=(128, 128), mode="bicubic", align_corners=False)
        hidden: torch.Tensor = network.extract_features((resized.clamp(0.0, 1.0) * 255.0 - 127.0) / 128.0)
        return hidden.mean(dim=(2, 3))

    return features


def statistics_of_all(batches: Iterable[Features | None]) -> Statistics:
    """Statistics of the features of all processes, each of which gives the same number of batches; None: no images."""
    return statistics_of(part for batch in batches for part in gather_objects(batch) if part is not None)


class GenerationMonitor:
    """Frechet distance between drawn images and the reference, as FIDs are reported: classes at random, no guidance, no
    filters.

    Without `watch.reference`, the reference is a fixed choice of training images as the stage sees them, randomly
    cropped and mirrored where it does so: the distribution that it learns.
    """

    def __init__(
        self,
        stage: Stage,
        source: ImageSource,
        extract: Extractor,
        stop_if_requested: Callable[[], None] = lambda: None,
    ) -> None:
        self.stage, self.source, self.extract, self.stop_if_requested = stage, source, extract, stop_if_requested
        self.config = stage.config.watch
        self.protocol = SamplingProtocol(image_size=stage.config.data.image_size)
        self._reference: Statistics | None = None

    def measure(self) -> dict[str, float]:
        """`generation/frechet_<features>/{live,ema}`; called by all processes."""
        self._reference = self._reference or self._find_reference()
        figures = {}
        for weights in WEIGHTS:
            distance = frechet_distance(statistics_of_all(self._drawn(weights)), self._reference).value
            figures[f"generation/frechet_{self.config.features}/{weights}"] = distance
        return figures

    @cached_property
    def _requests(self) -> list[Request]:
        """This process's requests. Made only once, because captions are read with their images."""
        count = self.config.generation_images
        requests = requests_for(self.stage, self.source, count, self.protocol, self.stop_if_requested, "random")
        return list(requests)[world().rank :: world().size]

    def _drawn(self, weights: Weights) -> Iterator[Features | None]:
        with evaluation_models(self.stage, weights) as models:
            engine = models.engine(self.protocol)
            for tile in in_batches(self._requests, engine.tile, self.stop_if_requested):
                yield self.extract(to_01(engine.images_u8(engine.tokens(tile)))) if tile else None

    def _find_reference(self) -> Statistics:
        if self.config.reference is not None:
            return read_reference(Path(self.config.reference))
        own = fixed_choice(self.source, self.config.generation_images)[world().rank :: world().size]
        batches = in_batches(own, self.config.batch_size, self.stop_if_requested)
        images = (images_of(self.source, indices) for indices in batches)
        return statistics_of_all(None if batch is None else self.extract(to_01(batch)) for batch in images)


def read_reference(path: Path) -> Statistics:
    """The statistics `mu` and `sigma` of an .npz file, the form in which they are published."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return Statistics(mean=arrays["mu"], covariance=arrays["sigma"])
    except (OSError, KeyError, ValueError) as error:
        raise UserError(
            f"{path} holds no statistics mu and sigma ({error}); set watch.reference to another file, or leave it out."
        ) from None


class ComparedBatch(NamedTuple):
    """One batch of one process. Keys: `original`, or the weights that reconstructed the images."""

    features: dict[str, Features]
    metrics: dict[str, npt.NDArray[np.float64]]
    """(n, 3): L1, PSNR, SSIM."""


class ReconstructionMonitor:
    """L1, PSNR (dB), SSIM and Frechet distance of reconstructed validation images; pixels are not rounded to levels."""

    def __init__(
        self,
        stage: Stage,
        source: ImageSource,
        extract: Extractor,
        stop_if_requested: Callable[[], None] = lambda: None,
    ) -> None:
        self.stage, self.source, self.extract, self.stop_if_requested = stage, source, extract, stop_if_requested
        self.config = stage.config.watch
        self._reference: Statistics | None = None

    def measure(self) -> dict[str, float]:
        """`vq_val/*` for the live tokenizer, `vq_val_ema/*` for the averaged one; called by all processes."""
        accumulators: dict[str, StatisticsAccumulator] = defaultdict(StatisticsAccumulator)
        sums: dict[str, npt.NDArray[np.float64]] = defaultdict(lambda: np.zeros(3))
        for batch in self._compared():
            for part in gather_objects(batch):
                for name, features in part.features.items():
                    accumulators[name].add(features)
                for name, metrics in part.metrics.items():
                    sums[name] += metrics.sum(axis=0)
        self._reference = self._reference or accumulators["original"].statistics()
        figures: dict[str, float] = {}
        for name, total in sums.items():
            prefix = "vq_val" if name == "live" else "vq_val_ema"
            fitted = accumulators[name].statistics()
            l1_mean, psnr_mean, ssim_mean = (total / accumulators[name].count).tolist()
            figures |= {f"{prefix}/l1": l1_mean, f"{prefix}/psnr": psnr_mean, f"{prefix}/ssim": ssim_mean}
            figures[f"{prefix}/frechet_{self.config.features}"] = frechet_distance(fitted, self._reference).value
        return figures

    def _compared(self) -> Iterator[ComparedBatch]:
        """The compared batches; each image is read once for all weights."""
        own = fixed_choice(self.source, self.config.reconstruction_images)[world().rank :: world().size]
        with ExitStack() as stack:
            models = {
                weights: stack.enter_context(evaluation_models(self.stage, weights, with_ar=False))
                for weights in WEIGHTS
                if weights == "live" or "vq_ema" in self.stage.averages  # a frozen tokenizer is its own average
            }
            for indices in in_batches(own, self.config.batch_size, self.stop_if_requested):
                originals = images_of(self.source, indices)
                yield ComparedBatch({}, {}) if originals is None else self._batch(originals, models)

    def _batch(self, originals: ImagesU8, models: Mapping[Weights, EvaluationModels]) -> ComparedBatch:
        truth = to_01(originals)
        compared = ComparedBatch({} if self._reference else {"original": self.extract(truth)}, {})
        for weights, model in models.items():
            recon = model.reconstruct(originals)
            compared.features[weights] = self.extract(recon)
            compared.metrics[weights] = np.stack([metric(truth, recon) for metric in (l1, psnr, ssim)], axis=1)
        return compared
