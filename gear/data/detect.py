"""What kind of data set a folder holds."""

from __future__ import annotations

import itertools
from pathlib import Path

from gear.data.captioned_folder import METADATA
from gear.data.config import Kind
from gear.data.idx import idx_files
from gear.data.shard_index import load_index
from gear.data.shards import find_shards
from harness.contract.errors import UserError
from harness.contract.walk import files_in, is_image_name, walk

_LOOK_AT = 200
"""Files looked at to tell whether images have captions beside them."""


def detect_kind(place: str) -> Kind:
    """The kind of `place` (a folder, a .tar or a pattern of them), from its files' names and one shard's members.

    Raises UserError when it looks like no known kind, or like several at once.
    """
    root = Path(place)
    if not root.is_dir():
        return _shard_kind(place)
    candidates: dict[Kind, str] = {}
    if files_in(root, ".tar"):
        candidates[_shard_kind(place)] = "shards (*.tar)"
    if idx_files(root):
        candidates["idx"] = "IDX files (*-ubyte)"
    if any((root / name).is_file() for name in METADATA):
        candidates["captioned-folder"] = " or ".join(METADATA)
    elif not candidates:
        candidates |= _image_kinds(root)
    if len(candidates) > 1:
        found = " and ".join(candidates.values())
        raise UserError(
            f"{place} holds {found}; say which is meant with " + " or ".join(f"--set data.kind={k}" for k in candidates)
        )
    if not candidates:
        raise UserError(
            f"{place} holds no known kind of training data: images in class folders, images with captions, tar shards "
            "or IDX files; check --data-dir."
        )
    return next(iter(candidates))


def _image_kinds(root: Path) -> dict[Kind, str]:
    """Class folders, captions beside images, or both."""
    files = itertools.islice(walk(root), _LOOK_AT)
    images = [root / name for name in files if is_image_name(name)]
    if not images:
        return {}
    if any(path.with_suffix(".txt").is_file() for path in images):
        return {"captioned-folder": "images with captions beside them"}
    return {"image-folder": "images in class folders"}


def _shard_kind(place: str) -> Kind:
    """GPIC keeps captions in JSON, BLIP3o in text; a shard with both is ambiguous."""
    shard = find_shards(place)[0]
    first = load_index(shard)[:_LOOK_AT]
    json_too, text_too = (bool((first[f"{name}_size"] >= 0).any()) for name in ("json", "txt"))
    if json_too and text_too:
        raise UserError(
            f"{shard} holds .json and .txt beside its images; say where captions are: --set data.kind=gpic (JSON) "
            "or --set data.kind=blip3o (text)."
        )
    return "gpic" if json_too else "blip3o"
