"""What a teacher family defines for the registry in `gear.teachers`: one `Family` per file, for one or more teachers.

Published vision transformers share `gear.teachers.vit.ViTFamily`; anything else is a subclass with three methods.
docs/add-a-teacher.md is the worked example.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

from gear.teachers.base import Teacher


class Family(ABC):
    """Frozen networks whose features are read the same way."""

    name: str
    """First part of its teachers' names, up to the first `-`."""

    @property
    def image_sizes(self) -> tuple[int, ...] | None:
        """Supported sides R of the images, in pixels; None: any."""
        return None

    @abstractmethod
    def teachers(self) -> list[str]:
        """The names of its teachers, as in `teacher.name`."""

    @abstractmethod
    def weights(self, teacher: str, image_size: int) -> str | None:
        """Where the published weights of a teacher are, for `gear.assets`; None: they come with a package.

        Raises UserError when the family has no such teacher; MissingAsset when no single file is published.
        """

    @abstractmethod
    def build(self, teacher: str, *, image_size: int, grid: int, layer: int, weights: Path | None) -> Teacher:
        """One teacher, frozen, for images of a size that it is used at.

        grid: tokens on a side of an image. layer: as in `TeacherConfig`. weights: a file or folder; None: the
        package's, or an untrained network where the user asked for `random`.
        Raises UserError when it has no such layer.
        """
