"""Do drawn digits follow their captions? Digit by the demo's classifier, colour by the hue of the ink."""

from __future__ import annotations

import colorsys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from gear.ar.t2i import TextCondition, TextToImageAR
from gear.data.digits import COLOURS, NUM_CLASSES, caption, is_unseen, load_digits
from gear.sampling.draws import PerImageDraw
from gear.sampling.pixels import to_u8
from gear.sampling.rollout import SamplingOptions, roll_out
from gear.training.stages.build import build_stage
from gear.training.stages.t2i import TextToImageStage
from gear.weights import open_model
from harness.scoring.digit_classifier import DigitClassifier

_INK = 0.5
"""Pixels with at least this share of the image's darkest ink determine the colour."""


def colour_ids(images_u8: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """(N, H, W, 3) uint8 on white -> (N,) the index in COLOURS of the nearest hue; white paper gives 0."""
    palette = np.array([_hue(np.array(colour) / 255.0) for colour in COLOURS.values()])
    found = []
    for image in images_u8 / 255.0:
        ink = 1.0 - image.min(axis=-1)
        hue = _hue(image[ink >= _INK * ink.max()].mean(axis=0))
        distance = np.abs((palette - hue + 0.5) % 1.0 - 0.5)
        found.append(distance.argmin())
    return np.array(found)


def _hue(rgb: npt.NDArray[np.float64]) -> float:
    return colorsys.rgb_to_hsv(*rgb)[0]


def pairs(*, unseen: bool) -> npt.NDArray[np.int64]:
    """(N, 2): digit and colour id of every pair that training showed, or held out."""
    digits, colours = np.divmod(np.arange(NUM_CLASSES * len(COLOURS)), len(COLOURS))
    return np.stack([digits, colours], axis=1)[is_unseen(digits, colours) == unseen]


def draw(
    stage: TextToImageStage, wanted: npt.NDArray[np.int64], options: SamplingOptions, seed: int = 0
) -> npt.NDArray[np.uint8]:
    """One image per row of `wanted` (digit, colour id), (N, 32, 32, 3) uint8, from the averaged weights."""
    ar = stage.averages["ema"].module
    assert isinstance(ar, TextToImageAR)
    images: list[npt.NDArray[np.uint8]] = []
    for part in np.array_split(wanted, max(1, len(wanted) // 80)):
        encoded = stage.text_encoder.encode([caption(int(digit), int(colour)) for digit, colour in part])
        condition = TextCondition(features=encoded.features, mask=encoded.mask, null=stage.null_caption())
        num_tokens = ar.config.block_size
        seeds = [seed * 1_000_000 + number for number in range(len(images), len(images) + len(part))]
        drawn = PerImageDraw(seeds, num_tokens)
        ids = roll_out(ar, condition, num_tokens=num_tokens, options=options, draw=drawn)
        with torch.inference_mode():
            images.extend(to_u8(stage.tokenizer.decode_ids(ids)).numpy())
    return np.stack(images)


def accuracies(images_u8: npt.NDArray[np.uint8], wanted: npt.NDArray[np.int64]) -> dict[str, float]:
    """Shares of images whose digit, whose colour, and both are those of the caption."""
    train = load_digits("train")
    digit = DigitClassifier(train.images_u8, train.labels).predict(images_u8) == wanted[:, 0]
    colour = colour_ids(images_u8) == wanted[:, 1]
    return {
        "digit": float(digit.mean()),
        "colour": float(colour.mean()),
        "both": float((digit & colour).mean()),
    }


def load_stage(run: Path) -> TextToImageStage:
    """A finished run, for sampling."""
    opened = open_model(run)
    assert opened.config is not None
    stage, _ = build_stage("t2i", opened.config, torch.device("cpu"), init=opened)
    assert isinstance(stage, TextToImageStage)
    return stage
