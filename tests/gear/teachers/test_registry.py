"""The registry of teacher families."""

from __future__ import annotations

import pytest

from gear.teachers import FAMILIES, check_image_size, register, teacher_names
from harness.contract.errors import UserError


def test_the_first_part_of_a_teachers_name_is_its_family() -> None:
    for name, family in FAMILIES.items():
        assert family.name == name
        assert all(teacher.partition("-")[0] == name for teacher in family.teachers())
    assert len(set(teacher_names())) == len(teacher_names())


def test_a_name_can_be_registered_once() -> None:
    with pytest.raises(ValueError, match="a teacher family named 'lite0' already exists"):
        register(FAMILIES["lite0"])


def test_the_families_that_take_an_image_size_are_named() -> None:
    with pytest.raises(UserError, match=r"clip is used at 256 px, not at 384; at 384 px take one of lite0, dinov2, "):
        check_image_size("clip-vit-L", 384)
    check_image_size("lite0", 37)
    check_image_size("mine-vit-b", 37)  # not registered here: a model trained with it can still be used
