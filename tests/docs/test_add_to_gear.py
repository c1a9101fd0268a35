"""The pages on adding a tokenizer or a teacher, followed to the letter in a copy of the package."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"(?:^`(?P<path>[\w./-]+)`:\n\n)?^```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page, and the file it is about: the one named above it, or above the block before."""

    kind: str
    path: str
    text: str


def blocks_of(page: str) -> list[Block]:
    blocks, path = [], ""
    for found in BLOCK.finditer((ROOT / "docs" / page).read_text()):
        path = found["path"] or path
        blocks.append(Block(found["kind"], path, found["text"]))
    return blocks


def changed(text: str, diff: str) -> str:
    """`text` with one hunk applied; what the hunk shows must be there once."""
    lines = diff.splitlines(keepends=True)
    old, new = ("".join(line[1:] for line in lines if line[0] in kept) for kept in (" -", " +"))
    assert text.count(old) == 1, f"the page shows lines that are not in the file:\n{old}"
    return text.replace(old, new)


def follow(page: str, folder: Path) -> None:
    """Write every file, apply every change and run every command of a page, in its order."""
    shutil.copytree(ROOT / "gear", folder / "gear", ignore=shutil.ignore_patterns("__pycache__"))
    environment = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"}

    def run(*words: str) -> None:
        done = subprocess.run([sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout}\n{done.stderr}"

    for block in blocks_of(page):
        path = folder / block.path
        if block.kind == "diff":
            path.write_text(changed(path.read_text(), block.text))
        elif block.kind == "bash":
            for line in block.text.splitlines():
                program, *words = shlex.split(line)
                run("-m", program, *words)
        else:
            path.write_text(block.text)
            if path.parent == folder and path.suffix == ".py":
                run(path.name)


@pytest.mark.slow
@pytest.mark.parametrize("page", ["add-a-tokenizer.md", "add-a-teacher.md"])
def test_the_example_of_the_page_works(page: str, tmp_path: Path) -> None:
    follow(page, tmp_path)
