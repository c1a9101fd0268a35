"""Small data sets on the disk."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image


def jpeg(seed: int = 0, size: tuple[int, int] = (24, 20)) -> bytes:
    return encoded(seed, size, "jpeg")


def encoded(seed: int, size: tuple[int, int], form: str) -> bytes:
    """A random image of (width, height)."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, form)
    return stream.getvalue()


def tar(path: Path, members: Mapping[str, bytes]) -> Path:
    """A tar with these members in this order."""
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def gpic_shard(path: Path, count: int, first: int = 0) -> Path:
    members = {}
    for number in range(first, first + count):
        members[f"{number:06d}.jpg"] = jpeg(number)
        members[f"{number:06d}.json"] = f'{{"caption": "picture {number}", "caption_type": "long"}}'.encode()
    return tar(path, members)
