"""Right or wrong per image, summed up as GenEval does: a share per task, and their plain mean, which is the score.

The overall score is not the share of right images: every task weighs the same, whatever its number of prompts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.contract.files import write_atomically


@dataclass(frozen=True, kw_only=True)
class TaskScore:
    """One task of a benchmark, such as "counting"."""

    correct: int
    images: int

    @property
    def score(self) -> float:
        """Share of right images."""
        return self.correct / self.images


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The scores of a set of judged images, without those that could not be judged."""

    tasks: Mapping[str, TaskScore]
    """In order of first appearance."""
    prompts: int
    correct_prompts: int
    """Prompts with at least one right image."""

    @property
    def images(self) -> int:
        """Images judged."""
        return sum(task.images for task in self.tasks.values())

    @property
    def correct_images(self) -> int:
        """Images found right."""
        return sum(task.correct for task in self.tasks.values())

    @property
    def overall(self) -> float:
        """The GenEval score: mean over the tasks present."""
        return sum(task.score for task in self.tasks.values()) / len(self.tasks)


def summarise(items: Iterable[Mapping[str, Any]]) -> Summary:
    """Sum up judged images.

    Args:
        items: with `tag`, `correct`, and `metadata`, the prompt's line as an object or as JSON text: images with equal
            ones are of one prompt.
    Raises:
        ValueError: there are none.
    """
    tasks: dict[str, list[bool]] = {}
    prompts: dict[str, bool] = {}
    for item in items:
        correct = bool(item["correct"])
        tasks.setdefault(item["tag"], []).append(correct)
        metadata = item["metadata"]
        prompt = metadata if isinstance(metadata, str) else json.dumps(metadata, sort_keys=True)
        prompts[prompt] = prompts.get(prompt, False) or correct
    if not tasks:
        raise ValueError("there are no judged images to sum up")
    return Summary(
        tasks={tag: TaskScore(correct=sum(hits), images=len(hits)) for tag, hits in tasks.items()},
        prompts=len(prompts),
        correct_prompts=sum(prompts.values()),
    )


def printed(summary: Summary) -> str:
    """The report as the original prints it, for a comparison side by side."""
    lines = [
        *("Summary", "======="),
        f"Total images: {summary.images}",
        f"Total prompts: {summary.prompts}",
        f"% correct images: {summary.correct_images / summary.images:.2%}",
        f"% correct prompts: {summary.correct_prompts / summary.prompts:.2%}",
        *("", "Task breakdown", "=============="),
        *(f"{tag:<16} = {task.score:.2%} ({task.correct} / {task.images})" for tag, task in summary.tasks.items()),
        *("", f"Overall score (avg. over tasks): {summary.overall:.5f}"),
    ]
    return "\n".join(lines) + "\n"


def write_results(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write verdicts as GenEval's own evaluation does, so that its summary reads them too.

    A JSON object per image; `metadata` and `details` are JSON text inside it, as in the original.
    """
    with write_atomically(path, "w") as handle:
        for row in rows:
            theirs = {name: row[name] for name in ("filename", "tag", "prompt", "correct", "reason")}
            texts = {name: json.dumps(row[name], ensure_ascii=False) for name in ("metadata", "details")}
            handle.write(json.dumps({**theirs, **texts}, ensure_ascii=False) + "\n")
