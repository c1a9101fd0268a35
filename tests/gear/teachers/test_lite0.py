from __future__ import annotations

import pytest
import torch

from gear.teachers import Targets, TeacherConfig, build_teacher
from harness.contract.errors import UserError


@pytest.fixture(scope="module")
def images_u8() -> torch.Tensor:
    return torch.randint(0, 256, (10, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_a_patch_belongs_to_a_token(images_u8: torch.Tensor) -> None:
    teacher = build_teacher(TeacherConfig(), grid=4)
    assert teacher.features(images_u8[:2]).shape == (2, 16, teacher.dim)


def test_patches_are_in_raster_order() -> None:
    """A bright corner changes the first patch most, not the last."""
    teacher = build_teacher(TeacherConfig(), grid=4)
    plain = torch.full((1, 3, 64, 64), 128, dtype=torch.uint8)
    marked = plain.clone()
    marked[:, :, :16, 16:32] = torch.randint(0, 256, (3, 16, 16), dtype=torch.uint8)
    change = (teacher.features(marked) - teacher.features(plain)).norm(dim=-1)[0]
    assert int(change.argmax()) == 1, "row 0, column 1"


def test_chunks_do_not_change_the_features(images_u8: torch.Tensor) -> None:
    teacher = build_teacher(TeacherConfig(), grid=4)
    together = teacher.features(images_u8)
    one_by_one = torch.cat([teacher.features(image[None]) for image in images_u8])
    torch.testing.assert_close(together, one_by_one, rtol=1e-4, atol=1e-4)


def test_remembered_targets_are_the_fresh_ones(images_u8: torch.Tensor) -> None:
    config = TeacherConfig(spatial_norm="zscore")
    teacher = build_teacher(config, grid=4)
    fresh, remembered = (Targets(teacher, config, remember=remember) for remember in (False, True))
    ids = torch.arange(10)
    want = fresh(images_u8, ids)
    remembered(images_u8[:6], ids[:6])
    got = remembered(images_u8[3:], ids[3:])
    torch.testing.assert_close(got, want[3:], rtol=2e-3, atol=2e-3)
    assert not got.requires_grad


def test_an_unknown_teacher_is_refused() -> None:
    with pytest.raises(UserError, match="no teacher 'dino'; choose one of lite0"):
        build_teacher(TeacherConfig(name="dino"), grid=4)
