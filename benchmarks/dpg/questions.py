"""DPG-Bench's question table: which questions are asked about which prompt, and which depend on which.

The original reads the table with two quirks, kept here because published numbers depend on them: the first data row is
skipped, and an item that appears again later in the file replaces its earlier questions.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.contract.errors import MissingAsset

COLUMNS = ("item_id", "proposition_id", "dependency", "tuple", "question_natural_language")
"""The columns that are read; the table has four more."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """One question about an image."""

    number: int
    """Number within its item, from 1."""
    text: str
    parents: tuple[int, ...]
    """Questions of the same item that must be answered yes, or this one counts as no."""
    category: str
    """Level 2, such as "attribute - color", or "global"."""

    @property
    def broad_category(self) -> str:
        """Level 1: entity, attribute, relation, global, other."""
        return self.category.partition("-")[0].strip()


@dataclass(frozen=True)
class Item:
    """The questions of one prompt, in the order of the table."""

    questions: tuple[Question, ...]


def read_questions(path: Path, *, skip_first_row: bool = True) -> dict[str, Item]:
    """Read a question table: prompt key -> its questions.

    Args:
        path: the CSV file.
        skip_first_row: as the original does; False also asks the first question of the first item.
    Raises:
        MissingAsset: the file is not such a table; the message names the row.
    """
    rows = _rows(path)
    items: dict[str, dict[int, Question]] = {}
    previous = None
    for number, row in enumerate(rows):
        if skip_first_row and number == 0:
            continue
        key = row["item_id"]
        if key != previous:
            items[key] = {}
        previous = key
        question = _question(row, f"{path}, row {number + 2}")
        items[key][question.number] = question  # a repeated number keeps its place and takes its last row
    return {key: Item(tuple(questions.values())) for key, questions in items.items()}


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as handle:
            rows = list(csv.DictReader(handle, restval=""))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise MissingAsset(f"{path}: cannot be read as CSV ({error}); {_AGAIN}") from error
    missing = [name for name in COLUMNS if not rows or rows[0].get(name) is None]
    if missing:
        raise MissingAsset(f"{path}: has no column {missing[0]!r}, so it is not a question table; {_AGAIN}")
    return rows


def _question(row: Mapping[str, str], where: str) -> Question:
    try:
        number = int(row["proposition_id"])
        parents = tuple(int(word) for word in row["dependency"].split(","))
    except ValueError as error:
        raise MissingAsset(f"{where}: proposition_id and dependency are whole numbers ({error}); {_AGAIN}") from error
    category = row["tuple"].partition("(")[0].strip()
    text = row["question_natural_language"]
    if not category or not text:
        raise MissingAsset(f"{where}: has no category or no question; {_AGAIN}")
    return Question(number=number, text=text, parents=tuple(p for p in parents if p != 0), category=category)


_AGAIN = "fetch it again: harness assets pull dpg-questions"
