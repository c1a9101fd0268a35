"""What lies in the cache of the Hugging Face hub's client, as inputs of a step.

A snapshot there is a folder of links to files elsewhere (`models--OWNER--NAME/snapshots/COMMIT/...`), which a container
would not see: each file is given by itself.
"""

from __future__ import annotations

from pathlib import Path

from harness.contract.walk import walk
from harness.planning.steps import FileInput


def commit_of(path: Path) -> str | None:
    """The commit of a snapshot, or of a file in one; None outside of a cache."""
    for folder in (path, *path.parents):
        if folder.parent.name == "snapshots" and folder.parents[1].name.startswith("models--"):
            return folder.name
    return None


def inputs_by_file(name: str, folder: Path) -> dict[str, FileInput]:
    """Every file of a folder as an input below `{in}/<name>`, with links followed."""
    return {f"{name}/{file}": FileInput((folder / file).resolve()) for file in walk(folder)}
