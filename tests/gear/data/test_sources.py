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


LITTER = [".ipynb_checkpoints", "__MACOSX", ".git", "@eaDir", "lost+found"]


@pytest.mark.parametrize("name", LITTER)
def test_hidden_folders_and_litter_are_no_classes_and_shift_no_label(folder: Path, name: str) -> None:
    (folder / name).mkdir()
    make_image = (folder / "ant" / "0.png").read_bytes()
    for place in (folder / name, folder / "ant" / name):
        place.mkdir(exist_ok=True)
        (place / "0-checkpoint.png").write_bytes(make_image)
    (folder / "ant" / "._0.png").write_bytes(b"no image")
    source = ImageFolderSource(folder, 16)
    assert source.classes == ["ant", "cat"] and source.labels.tolist() == [0, 0, 0, 1, 1]


def test_an_empty_class_folder_is_refused_by_name(folder: Path) -> None:
    for name in ("bee", "dog"):
        (folder / name).mkdir()
    (folder / "dog" / "notes.txt").touch()
    with pytest.raises(UserError, match="class folders without an image: bee, dog; put images into them, or remove"):
        ImageFolderSource(folder, 16)


@pytest.mark.parametrize("target", [".", "..", "../cat", "../.."])
def test_a_link_in_a_circle_multiplies_nothing(folder: Path, target: str) -> None:
    root = folder / "data"
    for name in ("ant", "cat"):
        (folder / name).rename((root / name) if root.is_dir() else root.mkdir() or root / name)
    (root / "cat" / "latest").symlink_to(target)
    assert len(ImageFolderSource(root, 16)) <= 2 * 5


def test_linked_classes_and_images_are_read_and_links_to_nothing_named(folder: Path, tmp_path_factory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "cat"
    (folder / "cat").rename(elsewhere)
    (folder / "cat").symlink_to(elsewhere)
    assert ImageFolderSource(folder, 16).labels.tolist() == [0, 0, 0, 1, 1]
    (folder / "ant" / "9.png").symlink_to("gone.png")
    with pytest.raises(UserError, match=r"ant/9\.png: is a link to something that is not there"):
        ImageFolderSource(folder, 16)


def test_images_that_are_not_read_are_counted(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    Image.new("RGB", (8, 8)).save(folder / "ant" / "x.gif")
    Image.new("RGB", (8, 8)).save(folder / "overview.png")
    assert len(ImageFolderSource(folder, 16)) == 5
    assert "holds 1 image of another kind (the first is ant/x.gif)" in caplog.text
    assert "1 images lie in no class folder and are not read, such as overview.png" in caplog.text


def test_the_order_of_the_samples_is_that_of_the_names_as_text(tmp_path: Path) -> None:
    for name in ("cat/a/1.png", "cat/a-b/1.png", "cat/x.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    source = ImageFolderSource(tmp_path, 16)
    assert [source._names[i] for i in range(3)] == ["cat/a-b/1.png", "cat/a/1.png", "cat/x.png"]
