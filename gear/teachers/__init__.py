"""Frozen networks whose patch features the AR model and, through it, the tokenizer are aligned with.

Everything that differs between families is in the `Family` that each file defines; the list below is the only
place that names them all. To add a family, see docs/add-a-teacher.md.
"""

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
from gear.teachers.lite0 import LITE0
from gear.teachers.siglip2 import SIGLIP2
from harness.contract.errors import UserError

log = logging.getLogger(__name__)

FAMILIES: dict[str, Family] = {}
"""Every family by the first part of its teachers' names."""

RANDOM = "random"
"""Instead of weights: an untrained network."""


def register(family: Family) -> None:
    """Make a family known to configurations, messages and the list of external files. ValueError: name taken."""
    if family.name in FAMILIES:
        raise ValueError(f"a teacher family named {family.name!r} already exists; give yours another name")
    FAMILIES[family.name] = family


for _family in (LITE0, DINOV2, DINOV2_REG, DINOV3, JEPA21, SIGLIP2, CLIP):
    register(_family)


def teacher_names() -> list[str]:
    """The names of all teachers."""
    return [name for family in FAMILIES.values() for name in family.teachers()]


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
    family = family_of(name)
    source = weights_of(config, name, image_size)  # found before anything large is built
    path = find_asset(source, purpose=f"the teacher {name}", setting="teacher.weights") if source else None
    check_image_size(name, image_size)
    if path is not None:
        log.info("teacher %s: %s", name, path)
    return family.build(name, image_size=image_size, grid=grid, layer=config.layer, weights=path)


def weights_of(config: TeacherConfig, name: str, image_size: int) -> str | None:
    """Where the weights of one teacher of `config` are, for `gear.assets`.

    None: it needs no file, since it comes with a package or is to be left untrained. Raises MissingAsset when none is
    named and none is published as a single file.
    """
    family, source = family_of(name), config.sources[config.names.index(name)]
    if source == RANDOM:
        return None
    return source or family.weights(name, image_size)


def family_of(name: str) -> Family:
    """The family of a teacher. Raises UserError for an unknown name, with the nearest name and all of them."""
    family = FAMILIES.get(name.partition("-")[0])
    if family is not None and name in family.teachers():
        return family
    known = teacher_names() if family is None else family.teachers()
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}? There are" if near else "choose one of"
    raise UserError(f"no teacher named {name!r}; {hint} {', '.join(known)}.")


def check_image_size(name: str, image_size: int) -> None:
    """Raises UserError where a teacher does not support this size, naming the families that do.

    An unknown one passes, so that a model can be used where the family that it was trained with is not registered.
    """
    family = FAMILIES.get(name.partition("-")[0])
    if family is not None and family.image_sizes is not None and image_size not in family.image_sizes:
        able = [n for n, other in FAMILIES.items() if other.image_sizes is None or image_size in other.image_sizes]
        sizes = ", ".join(map(str, family.image_sizes))
        raise UserError(
            f"the teacher {family.name} is used at {sizes} px, not at {image_size}; "
            f"at {image_size} px take one of {', '.join(able)}."
        )


__all__ = [
    "FAMILIES",
    "RANDOM",
    "Family",
    "Targets",
    "Teacher",
    "TeacherConfig",
    "build_teachers",
    "check_image_size",
    "register",
    "teacher_names",
    "weights_of",
]
