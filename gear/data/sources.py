"""From a configuration to the data set it names."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

from gear.data.base import ImageSource
from gear.data.captioned_folder import CaptionedFolderSource
from gear.data.config import DataConfig
from gear.data.detect import detect_kind
from gear.data.digits import CaptionedDigitsSource, DigitsSource
from gear.data.folder import ImageFolderSource
from gear.data.idx import IdxSource
from gear.data.mixture import MixtureSource
from gear.data.shards import ShardSource, find_shards
from harness.contract.errors import UserError

__all__ = ["DataConfig", "ImageFolderSource", "ImageSource", "open_source"]


def open_source(config: DataConfig, *, train: bool = True) -> ImageSource:
    """The source that a configuration names: one place, or several separated by commas, each with its share.

    Raises UserError when a place is missing, empty, ambiguous, or holds more classes than `num_classes`.
    """
    if config.kind == "digits":
        return DigitsSource("train" if train else "held_out")
    if config.kind == "captioned-digits":
        return CaptionedDigitsSource("train" if train else "held_out")
    places = [place.strip() for place in (config.data_dir or "").split(",") if place.strip()]
    if not places:
        raise UserError("data_dir is not set; give the folder of the training data with --data-dir DIR.")
    sources = [_open(dataclasses.replace(config, data_dir=place), place, train) for place in places]
    return sources[0] if len(sources) == 1 else MixtureSource(sources, _shares(config.data_probs))


def _open(config: DataConfig, place: str, train: bool) -> ImageSource:
    kind = detect_kind(place) if config.kind == "auto" else config.kind
    size, flip = config.image_size, config.random_hflip
    if kind == "gpic" or kind == "blip3o":
        return ShardSource(find_shards(place), kind, size, train=train, random_hflip=flip)
    root = Path(place)
    if kind == "captioned-folder":
        return CaptionedFolderSource(root, size, train=train, random_hflip=flip)
    if kind == "idx":
        idx = IdxSource(root, size, train=train, random_hflip=flip)
        return _with_classes(idx, idx.num_classes, config)
    folder = ImageFolderSource(root, size, train=train, random_hflip=flip)
    return _with_classes(folder, len(folder.classes), config)


def _with_classes(source: ImageSource, num_classes: int, config: DataConfig) -> ImageSource:
    if num_classes > config.num_classes:
        raise UserError(
            f"{config.data_dir} holds {num_classes} classes but data.num_classes is {config.num_classes}; "
            f"set data.num_classes={num_classes}."
        )
    return source


def _shares(text: str) -> list[float]:
    try:
        shares = [float(share) for share in text.split(",") if share.strip()]
    except ValueError:
        shares = [math.nan]
    if not all(map(math.isfinite, shares)):
        raise UserError(f"data.data_probs is {text!r}; give one number per source, e.g. 0.7,0.3.")
    return shares
