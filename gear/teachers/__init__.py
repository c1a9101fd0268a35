"""Frozen networks whose patch features the AR model and, through it, the tokenizer are aligned with."""

from __future__ import annotations

import difflib
import logging

from gear.assets import find_asset
from gear.teachers.base import Targets, Teacher, TeacherConfig
from gear.teachers.clip import CLIP
from gear.teachers.dinov2 import DINOV2, DINOV2_REG
from gear.teachers.dinov3 import DINOV3
from gear.teachers.family import Family
from gear.teachers.jepa import JEPA21
from gear.teachers.layers import FINAL_LAYER
from gear.teachers.lite0 import Lite0Teacher
from gear.teachers.siglip2 import SIGLIP2
from gear.teachers.vit import ViTTeacher, variant_of
from harness.contract.errors import MissingAsset, UserError

__all__ = ["FAMILIES", "RANDOM", "Targets", "Teacher", "TeacherConfig", "build_teachers", "teacher_names", "weights_of"]

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
    teachers = [_build(config, name, image_size, grid) for name in config.names]
    for name, teacher in zip(config.names, teachers, strict=True):
        if teacher.grid != grid:
            raise UserError(
                f"the teacher {name} has {teacher.grid}^2 patches in {image_size} px but the tokenizer makes "
                f"{grid}^2 tokens; take a tokenizer that downsamples by 16, or the teacher lite0."
            )
    return teachers


def _build(config: TeacherConfig, name: str, image_size: int, grid: int) -> Teacher:
    source = weights_of(config, name, image_size)  # found before anything large is built
    path = find_asset(source, purpose=f"the teacher {name}", setting="teacher.weights") if source else None
    if name == "lite0":
        if config.layer != FINAL_LAYER:
            raise UserError("the teacher lite0 is only read at its end; set teacher.layer=-1.")
        return Lite0Teacher(grid, path)
    teacher = ViTTeacher(*_parse(name), image_size, layer=config.layer)
    if path is not None:
        log.info("teacher %s: %s", name, path)
        teacher.load(path)
    return teacher


def weights_of(config: TeacherConfig, name: str, image_size: int) -> str | None:
    """Where the weights of one teacher of `config` are, for `gear.assets`.

    None: it needs no file, since it comes with a package or is to be left untrained. Raises MissingAsset when none is
    named and none is published as a single file.
    """
    source = config.sources[config.names.index(name)]
    if name == "lite0" or source == RANDOM:
        return None if source == RANDOM else source
    public = variant_of(*_parse(name)).weights
    if source is None and public is None:
        raise MissingAsset(f"the teacher {name} has no single public file; set teacher.weights to its file or folder.")
    return source or str(public).format(image_size=image_size)


def _parse(name: str) -> tuple[Family, str]:
    """Family and size of `<family>-vit-<size>`."""
    parts = name.split("-")
    if len(parts) != 3 or parts[0] not in FAMILIES or parts[1] != "vit":
        near = difflib.get_close_matches(name, teacher_names(), n=1)
        hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(teacher_names())}."
        raise UserError(f"there is no teacher {name!r}; {hint}")
    return FAMILIES[parts[0]], parts[2]
