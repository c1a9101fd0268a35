"""Folders that are whole or absent: published by a rename, removed by a rename first."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from harness.contract.files import partial_path
from harness.contract.walk import walk


def publish_folder(target: Path, fill: Callable[[Path], None]) -> bool:
    """Make the folder `target` by filling a temporary one beside it and renaming that; false when it was there already.

    A kill leaves only the temporary folder, which nobody reads. When two processes make it at once, the first wins.
    """
    if target.exists():
        return False
    temporary = partial_path(target)
    temporary.mkdir(parents=True)
    try:
        fill(temporary)
        temporary.rename(target)
    except OSError:
        if not target.exists():
            raise
        return False
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return True


def discard(path: Path) -> None:
    """Remove a folder so that no reader ever sees half of it: it is renamed before its files are deleted.

    Only for the sole user of the folder: what a killed removal or creation of it left is removed too.
    """
    for leftover in path.parent.glob(f".{path.name}.*.partial"):
        shutil.rmtree(leftover, ignore_errors=True)
    if path.exists():
        doomed = partial_path(path)
        path.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)


def walk_files(folder: Path) -> Iterator[Path]:
    """Every file under `folder` as `harness.contract.walk` has it; what cannot be read is left out."""
    return (folder / name for name in walk(folder, error=None))


def file_sizes(folder: Path) -> dict[str, int]:
    """Relative POSIX path -> bytes, for every file under `folder`."""
    return {name: os.stat(f"{folder}/{name}").st_size for name in walk(folder, error=None)}  # noqa: PTH116


def sync_tree(folder: Path) -> None:
    """Put every file under `folder` on the disk, so that no later rename survives a power cut without them."""
    for path in walk_files(folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def link_relative(link: Path, target: Path) -> None:
    """Make `link` a relative symbolic link to `target`, replacing one that is there, in one step."""
    link.parent.mkdir(parents=True, exist_ok=True)
    temporary = partial_path(link)
    temporary.symlink_to(os.path.relpath(target, link.parent))
    temporary.replace(link)
