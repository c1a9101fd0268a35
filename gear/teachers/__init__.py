"""Frozen networks whose patch features the AR model and, through it, the tokenizer are aligned with."""

from __future__ import annotations

import difflib
import logging
from pathlib import Path

from gear.assets import find_asset
from gear.teachers.base import Targets, Teacher, TeacherConfig
from gear.teachers.clip import CLIP
from gear.teachers.dinov2 import DINOV2, DINOV2_REG
from gear.teachers.dinov3 import DINOV3
from gear.teachers.family import Family, Variant
from gear.teachers.jepa import JEPA21
from gear.teachers.lite0 import Lite0Teacher
from gear.teachers.siglip2 import SIGLIP2
from gear.teachers.vit import ViTTeacher, variant_of
from harness.contract.errors import MissingAsset, UserError

__all__ = ["FAMILIES", "RANDOM", "Targets", "Teacher", "TeacherConfig", "build_teachers", "teacher_names"]

log = logging.getLogger(__name__)

FAMILIES: dict[str, Family] = {family.name: family for family in (DINOV2, DINOV2_REG, DINOV3, JEPA21, SIGLIP2, CLIP)}
"""Vision transformers by the first part of their teachers' names."""

RANDOM = "random"
"""In place of weights: an untrained network."""


def teacher_names() -> list[str]:
    """Every teacher there is."""
    return ["lite0", *(f"{name}-vit-{size}" for name, family in FAMILIES.items() for size in family.variants)]


def build_teachers(config: TeacherConfig, *, image_size: int, grid: int) -> list[Teacher]:
    """The teachers of a configuration, frozen, one patch per token of an image.

    image_size: side R of the training images. grid: tokens on a side of an image.
    Raises UserError: unknown teacher or size, a layer it does not have, another number of patches than tokens.
    MissingAsset: its weights are not on this machine.
    """
    named = zip(config.names, config.sources, strict=True)
    teachers = [_build(name, source, config.layer, image_size, grid) for name, source in named]
    for name, teacher in zip(config.names, teachers, strict=True):
        if teacher.grid != grid:
            raise UserError(
                f"the teacher {name} has {teacher.grid}^2 patches in {image_size} px but the tokenizer makes "
                f"{grid}^2 tokens; take a tokenizer that downsamples by 16, or the teacher lite0."
            )
    return teachers


def _build(name: str, source: str | None, layer: int, image_size: int, grid: int) -> Teacher:
    if name == "lite0":
        if layer != -1:
            raise UserError("the teacher lite0 is only read at its end; set teacher.layer=-1.")
        path = find_asset(source, purpose="the teacher lite0", setting="teacher.weights") if source else None
        return Lite0Teacher(grid, path)
    family, size = _parse(name)
    path = None if source == RANDOM else _weights(name, variant_of(family, size), source, image_size)
    teacher = ViTTeacher(family, size, image_size, layer=layer)
    if path is not None:
        log.info("teacher %s: %s", name, path)
        teacher.load(path)
    return teacher


def _weights(name: str, variant: Variant, source: str | None, image_size: int) -> Path:
    """The file or folder of a teacher's weights, found before anything large is built."""
    public = None if variant.weights is None else variant.weights.format(image_size=image_size)
    wanted = source or public
    if wanted is None:
        raise MissingAsset(f"the teacher {name} has no single public file; set teacher.weights to its file or folder.")
    return find_asset(wanted, purpose=f"the teacher {name}", setting="teacher.weights")


def _parse(name: str) -> tuple[Family, str]:
    """Family and size of `<family>-vit-<size>`."""
    parts = name.split("-")
    if len(parts) != 3 or parts[0] not in FAMILIES or parts[1] != "vit":
        near = difflib.get_close_matches(name, teacher_names(), n=1)
        hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(teacher_names())}."
        raise UserError(f"there is no teacher {name!r}; {hint}")
    return FAMILIES[parts[0]], parts[2]
