"""Quality while training: Frechet distance of drawn images, and metrics of reconstructions, live and averaged.

The arithmetic is `harness.metrics`; the images come from the sampling engine and the validation data. Every process
takes every n-th image, and the features are put together. Distances are between features of the network in
`watch.features`: only `inception` with its official weights gives numbers called FID elsewhere (and those of 5,000
images are no FID-50k: compare them within a run).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from gear.assets import find_asset
from gear.data.base import ImageSource
from gear.training.distributed import rows_of_all, world
from gear.training.drawing import ImagesU8, Weights, images_of, models_of, requests_for
from gear.training.settings import WatchConfig
from gear.training.stage import Stage
from harness.contract.errors import UserError
from harness.contract.requests import Protocol
from harness.metrics.frechet import Statistics, frechet_distance, statistics
from harness.metrics.image import l1, psnr, ssim

Extractor = Callable[[ImagesU8], npt.NDArray[np.float32]]
"""(N, H, W, 3) uint8 -> features (N, D)."""
WEIGHTS: tuple[Weights, ...] = ("live", "ema")


def build_extractor(config: WatchConfig, device: torch.device) -> Extractor:
    """The network whose features are compared."""
    source = config.features_weights
    path = find_asset(source, purpose="a Frechet distance", setting="watch.features_weights") if source else None
    network = _lite0(path, device) if path is None or config.features == "lite0" else _inception(path, device)

    @torch.inference_mode()
    def extract(images_u8: ImagesU8) -> npt.NDArray[np.float32]:
        parts = torch.from_numpy(images_u8).split(config.batch_size)
        rows = [network(part.to(device).permute(0, 3, 1, 2).float() / 255.0).float().cpu() for part in parts]
        return torch.cat(rows).numpy()

    return extract


def _inception(weights: Path, device: torch.device) -> Callable[[torch.Tensor], torch.Tensor]:
    from gear.features.inception import InceptionV3

    return InceptionV3.from_file(weights).to(device)


def _lite0(weights: Path | None, device: torch.device) -> Callable[[torch.Tensor], torch.Tensor]:
    """Pooled features (1,280) of EfficientNet-Lite0 at 128 px."""
    from gear.teachers.lite0 import load_lite0

    network = load_lite0(weights).float().to(device)

    def features(images_01: torch.Tensor) -> torch.Tensor:
        resized = F.interpolate(images_01, size=(128, 128), mode="bicubic", align_corners=False)
        hidden: torch.Tensor = network.extract_features((resized.clamp(0.0, 1.0) * 255.0 - 127.0) / 128.0)
        return hidden.mean(dim=(2, 3))

    return features


class GenerationMonitor:
    """Frechet distance between drawn images and the reference, without guidance and filters, as FIDs are reported."""

    def __init__(self, stage: Stage, source: ImageSource, extract: Extractor) -> None:
        self.stage, self.source, self.extract = stage, source, extract
        self.config = stage.config.watch
        self._reference: Statistics | None = None

    def measure(self) -> dict[str, float]:
        """`generation/frechet_<features>/{live,ema}`; called by all processes."""
        reference = self._reference or self._find_reference()
        self._reference = reference
        protocol = Protocol(image_size=self.stage.config.data.image_size)
        requests = requests_for(self.stage, self.source, self.config.generation_images, protocol)
        own = list(requests)[world().rank :: world().size]
        figures = {}
        for weights in WEIGHTS:
            with models_of(self.stage, weights) as models:
                features = of_all(self.extract(models.draw(own, protocol)))
            distance = frechet_distance(statistics(features), reference).value
            figures[f"generation/frechet_{self.config.features}/{weights}"] = distance
        return figures

    def _find_reference(self) -> Statistics:
        if self.config.reference is not None:
            return read_reference(Path(self.config.reference))
        count = min(self.config.generation_images, len(self.source))
        images = images_of(self.source, world().rank, count, world().size)
        return statistics(of_all(self.extract(images)))


def read_reference(path: Path) -> Statistics:
    """The statistics `mu` and `sigma` of an .npz file, the form in which they are published."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return Statistics(mean=arrays["mu"], covariance=arrays["sigma"])
    except (OSError, KeyError, ValueError) as error:
        raise UserError(
            f"{path} holds no statistics mu and sigma ({error}); give another watch.reference, or leave it out."
        ) from None


class ReconstructionMonitor:
    """L1, PSNR (dB), SSIM and Frechet distance of reconstructed validation images."""

    def __init__(self, stage: Stage, source: ImageSource, extract: Extractor) -> None:
        self.stage, self.source, self.extract = stage, source, extract
        self.config = stage.config.watch

    def measure(self) -> dict[str, float]:
        """`vq_val/*` for the live tokenizer, `vq_val_ema/*` for the averaged one; called by all processes."""
        count = min(self.config.reconstruction_images, len(self.source))
        originals = images_of(self.source, world().rank, count, world().size)
        reference = statistics(of_all(self.extract(originals)))
        prefixes: dict[Weights, str] = {"live": "vq_val", "ema": "vq_val_ema"}
        figures: dict[str, float] = {}
        for weights, prefix in prefixes.items():
            if weights == "ema" and "vq_ema" not in self.stage.averages:
                continue  # a frozen tokenizer is its own average
            figures |= {
                f"{prefix}/{name}": value for name, value in self._figures(weights, originals, reference).items()
            }
        return figures

    def _figures(self, weights: Weights, originals: ImagesU8, reference: Statistics) -> dict[str, float]:
        with models_of(self.stage, weights) as models:
            recon = models.reconstruct(originals, self.config.batch_size)
        truth = originals.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255.0)
        per_image = np.stack([metric(truth, recon) for metric in (l1, psnr, ssim)], axis=1)  # (n, 3)
        means = of_all(per_image.astype(np.float64)).mean(axis=0)
        rebuilt_u8 = np.rint(recon.transpose(0, 2, 3, 1) * 255.0).astype(np.uint8)
        distance = frechet_distance(statistics(of_all(self.extract(rebuilt_u8))), reference).value
        names = ("l1", "psnr", "ssim")
        return dict(zip(names, map(float, means), strict=True)) | {f"frechet_{self.config.features}": distance}


def of_all(rows: npt.NDArray[np.generic]) -> npt.NDArray[np.float64]:
    """The rows of all processes in the order of ranks, of the dtype they had; called by all."""
    return rows_of_all(torch.from_numpy(np.ascontiguousarray(rows))).numpy()
