"""The documentation taken apart: fenced blocks, and the commands in them."""

from __future__ import annotations

import inspect
import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]

_FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NAMED = re.compile(r"^`([^`\n]+)`:\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_COMMENT = re.compile(r"\s+#\s.*$")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: str
    language: str
    text: str
    start: int
    """Where it begins in the page."""


def blocks(path: Path, *languages: str) -> list[Block]:
    """The fenced blocks of a page in these languages, in order."""
    found = _FENCE.finditer(path.read_text(encoding="utf-8"))
    every = [Block(path.name, match[1], match[2], match.start()) for match in found]
    return [block for block in every if block.language in languages]


def commands(path: Path) -> list[str]:
    """The commands of a page's `sh` blocks in order: one a line, without comments."""
    lines = [line for block in blocks(path, "sh") for line in block.text.replace("\\\n", " ").splitlines()]
    bare = [_COMMENT.sub("", line).strip() for line in lines]
    return [line for line in bare if line and not line.startswith("#")]


def files(path: Path) -> list[tuple[str, str, int]]:
    """(name, content, where in the page) of the blocks that follow a line such as "`folder/file.py`:"."""
    return [(match[1], match[2], match.start()) for match in _NAMED.finditer(path.read_text(encoding="utf-8"))]


def docstring_examples(text: str) -> list[str]:
    """The blocks of code in a docstring that call the API: paragraphs indented by four."""
    found: list[list[str]] = [[]]
    for line in inspect.cleandoc(text).splitlines():
        if line.startswith("    ") or not line:
            found[-1].append(line)
        else:
            found.append([])
    examples = (textwrap.dedent("\n".join(lines)).strip() for lines in found)
    return [example for example in examples if re.search(r"\bharness\.(plan|run|score)\(", example)]
