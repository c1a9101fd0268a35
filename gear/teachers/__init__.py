"""Frozen networks whose patch features the AR model and, through it, the tokenizer are aligned with."""

from __future__ import annotations

from pathlib import Path

from gear.teachers.base import Targets, Teacher, TeacherConfig
from gear.teachers.lite0 import Lite0Teacher
from harness.contract.errors import UserError

__all__ = ["TEACHERS", "Targets", "Teacher", "TeacherConfig", "build_teacher"]

TEACHERS = {"lite0": Lite0Teacher}
"""Name -> class; a class is built from the token grid's side and an optional file of weights."""


def build_teacher(config: TeacherConfig, grid: int) -> Teacher:
    """The teacher of a configuration, for images that are `grid` x `grid` tokens."""
    if config.name not in TEACHERS:
        raise UserError(f"there is no teacher {config.name!r}; choose one of {', '.join(sorted(TEACHERS))}.")
    return TEACHERS[config.name](grid, Path(config.weights) if config.weights else None)
