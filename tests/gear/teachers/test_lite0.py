from __future__ import annotations

import pytest
import torch

from gear.teachers import Teacher, TeacherConfig, build_teachers
from harness.contract.errors import MissingAsset, UserError


@pytest.fixture(scope="module")
def images_u8() -> torch.Tensor:
    return torch.randint(0, 256, (10, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    (only,) = build_teachers(TeacherConfig(), image_size=32, grid=4)
    return only


def test_a_patch_belongs_to_a_token(images_u8: torch.Tensor, teacher: Teacher) -> None:
    assert teacher.features(images_u8[:2]).shape == (2, 16, teacher.dim)


def test_patches_are_in_raster_order(teacher: Teacher) -> None:
    """A bright corner changes the first patch most, not the last."""
    plain = torch.full((1, 3, 64, 64), 128, dtype=torch.uint8)
    marked = plain.clone()
    marked[:, :, :16, 16:32] = torch.randint(0, 256, (3, 16, 16), dtype=torch.uint8)
    change = (teacher.features(marked) - teacher.features(plain)).norm(dim=-1)[0]
    assert int(change.argmax()) == 1, "row 0, column 1"


def test_chunks_do_not_change_the_features(images_u8: torch.Tensor, teacher: Teacher) -> None:
    together = teacher.features(images_u8)
    one_by_one = torch.cat([teacher.features(image[None]) for image in images_u8])
    torch.testing.assert_close(together, one_by_one, rtol=1e-4, atol=1e-4)


def test_only_its_output_can_be_used() -> None:
    with pytest.raises(UserError, match=r"set teacher\.layer=-1"):
        build_teachers(TeacherConfig(layer=3), image_size=32, grid=4)


def test_a_weights_file_that_does_not_exist_is_named() -> None:
    with pytest.raises(MissingAsset, match=r"lite0 needs nowhere\.pt, which does not exist; correct teacher\.weights"):
        build_teachers(TeacherConfig(weights="nowhere.pt"), image_size=32, grid=4)
