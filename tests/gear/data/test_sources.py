from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gear.data.base import BadSample
from gear.data.sources import DataConfig, ImageFolderSource, open_source
from harness.contract.errors import UserError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name, count in (("cat", 2), ("ant", 3)):
        (tmp_path / name).mkdir()
        for index in range(count):
            pixels = rng.integers(0, 256, (20, 31, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{index}.png")
    return tmp_path


def test_classes_are_numbered_in_the_order_of_their_names(folder: Path) -> None:
    source = ImageFolderSource(folder, 16)
    assert source.classes == ["ant", "cat"]
    assert [source.item(i, np.random.default_rng(0))[1] for i in range(5)] == [0, 0, 0, 1, 1]


def test_training_images_are_cropped_and_mirrored_by_the_given_generator(folder: Path) -> None:
    source = ImageFolderSource(folder, 16)
    one, again = (source.item(0, np.random.default_rng(5))[0] for _ in range(2))
    assert one.shape == (3, 16, 16)
    assert np.array_equal(one, again)
    others = [source.item(0, np.random.default_rng(seed))[0] for seed in range(8)]
    assert any(not np.array_equal(one, other) for other in others)


def test_validation_images_do_not_depend_on_the_generator(folder: Path) -> None:
    source = ImageFolderSource(folder, 16, train=False)
    first, second = (source.item(0, np.random.default_rng(seed))[0] for seed in (1, 2))
    assert np.array_equal(first, second)


def test_a_broken_image_is_named(folder: Path) -> None:
    (folder / "ant" / "0.png").write_bytes(b"not an image")
    with pytest.raises(BadSample, match=r"ant/0\.png: it cannot be read as an image"):
        ImageFolderSource(folder, 16).item(0, np.random.default_rng(0))


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no image in class folders"):
        ImageFolderSource(tmp_path, 16)
    with pytest.raises(UserError, match="is not a folder"):
        ImageFolderSource(tmp_path / "none", 16)


def test_more_classes_than_configured_are_refused(folder: Path) -> None:
    config = DataConfig(data_dir=str(folder), image_size=16, num_classes=1)
    with pytest.raises(UserError, match=r"holds 2 classes .* set data\.num_classes=2"):
        open_source(config)


def test_a_missing_data_dir_names_the_flag() -> None:
    with pytest.raises(UserError, match="--data-dir DIR"):
        open_source(DataConfig())
