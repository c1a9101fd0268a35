"""From a configuration to the data set it names."""

from __future__ import annotations

from pathlib import Path

from gear.data.base import ImageSource
from gear.data.config import DataConfig
from gear.data.digits import CaptionedDigitsSource, DigitsSource
from gear.data.folder import ImageFolderSource
from gear.data.images import IMAGE_SUFFIXES
from harness.contract.errors import UserError

__all__ = ["IMAGE_SUFFIXES", "DataConfig", "ImageFolderSource", "ImageSource", "open_source"]


def open_source(config: DataConfig, *, train: bool = True) -> ImageSource:
    """The source that a configuration names.

    Raises UserError when the folder is missing, empty or holds more classes than `num_classes`.
    """
    if config.kind == "digits":
        return DigitsSource("train" if train else "held_out")
    if config.kind == "captioned-digits":
        return CaptionedDigitsSource("train" if train else "held_out")
    if config.data_dir is None:
        raise UserError("data_dir is not set; give the folder of class folders with --data-dir DIR.")
    source = ImageFolderSource(Path(config.data_dir), config.image_size, train=train, random_hflip=config.random_hflip)
    if len(source.classes) > config.num_classes:
        raise UserError(
            f"{config.data_dir} holds {len(source.classes)} classes but data.num_classes is {config.num_classes}; "
            f"set data.num_classes={len(source.classes)}."
        )
    return source
