"""Pictures of a run: a grid of samples, and one of reconstructions beside their originals."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image as PillowImage

from gear.data.base import ImageSource
from gear.training.processes.distributed import world
from gear.training.stages.stage import Stage
from gear.training.watching.drawing import ImagesU8, evaluation_models, fixed_choice, images_of, requests_for
from gear.training.watching.trackers import Image
from harness.contract.files import write_atomically
from harness.contract.requests import SamplingProtocol

TOP_K = 2_000
"""Sample grids draw from that many likeliest tokens, as the published runs'."""
_GAP = 2
"""White pixels between pictures."""


def sample_grid(stage: Stage, source: ImageSource) -> Image | None:
    """Samples of the averaged weights with guidance, for the same requests every time; None without an AR model."""
    if "ar" not in stage.modules:
        return None
    config = stage.config.watch
    guides = getattr(stage.modules["ar"].config, "class_dropout_prob", 1.0) > 0
    scale = config.grid_cfg_scale if guides else 1.0
    protocol = SamplingProtocol(image_size=stage.config.data.image_size, cfg_scale=scale, top_k=TOP_K)
    requests = list(requests_for(stage, source, config.grid_images, protocol))
    with evaluation_models(stage, "ema") as models:  # all processes: shards are gathered
        if not world().is_main:
            return None
        engine = models.engine(protocol)
        tiles = [requests[start : start + engine.tile] for start in range(0, len(requests), engine.tile)]
        return grid(np.concatenate([engine.images_u8(engine.tokens(tile)) for tile in tiles]))


def reconstruction_grid(stage: Stage, source: ImageSource) -> Image | None:
    """Pairs of an image and its reconstruction by the averaged tokenizer; None without usable images."""
    if not world().is_main:
        return None
    config = stage.config.watch
    originals = images_of(source, fixed_choice(source, config.grid_images))
    if originals is None:
        return None
    with evaluation_models(stage, "ema", with_ar=False) as models:
        starts = range(0, len(originals), config.batch_size)
        parts = [models.reconstruct(originals[start : start + config.batch_size]) for start in starts]
    rebuilt = np.rint(np.concatenate(parts).transpose(0, 2, 3, 1) * 255.0).astype(np.uint8)
    return grid(np.concatenate([originals, rebuilt], axis=2))


def grid(images_u8: ImagesU8) -> Image:
    """(N, H, W, 3) -> one picture, about square, in reading order, on white."""
    columns = max(1, round(math.sqrt(len(images_u8) * images_u8.shape[1] / images_u8.shape[2])))
    missing = -len(images_u8) % columns
    framed = np.pad(images_u8, ((0, missing), (0, _GAP), (0, _GAP), (0, 0)), constant_values=255)
    framed[len(images_u8) :] = 255
    rows, (height, width) = len(framed) // columns, framed.shape[1:3]
    joined = framed.reshape(rows, columns, height, width, 3).transpose(0, 2, 1, 3, 4)
    return np.ascontiguousarray(joined.reshape(rows * height, columns * width, 3)[:-_GAP, :-_GAP])


def save_png(image: Image, path: object) -> None:
    """Write a picture, atomically."""
    with write_atomically(str(path)) as stream:
        PillowImage.fromarray(image).save(stream, format="PNG")
