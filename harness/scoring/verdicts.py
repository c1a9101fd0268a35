"""Right or wrong per image, summed up as GenEval does: a share per task, and their plain mean, which is the score.

The overall score is not the share of right images: every task weighs the same, whatever its number of prompts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.contract.files import write_atomically
from harness.contract.items import ItemValue


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
        prompt = _prompt_of(item)
        prompts[prompt] = prompts.get(prompt, False) or correct
    if not tasks:
        raise ValueError("there are no judged images to sum up")
    return Summary(
        tasks={tag: TaskScore(correct=sum(hits), images=len(hits)) for tag, hits in tasks.items()},
        prompts=len(prompts),
        correct_prompts=sum(prompts.values()),
    )


def verdict_values(
    items: Iterable[Mapping[str, Any]], *, overall: str, images: str | None = None
) -> Iterator[ItemValue]:
    """What each judged image, and each prompt, adds to the numbers of `summarise`.

    Args:
        items: as for `summarise`, with `id`.
        overall: the metric that is the mean over the tasks.
        images: the metric that is the share of right images, if there is one; those of tasks and prompts are called
            `task_score` and `correct_prompts`.
    """
    prompts: dict[str, bool] = {}
    for item in items:
        prompt, value = _prompt_of(item), float(bool(item["correct"]))
        prompts[prompt] = prompts.get(prompt, False) or value > 0
        of_item: dict[str, Any] = {"item": item["id"], "value": value, "prompt": prompt}
        yield ItemValue(metric=overall, group=item["tag"], **of_item)
        yield ItemValue(metric="task_score", category=item["tag"], **of_item)
        if images is not None:
            yield ItemValue(metric=images, **of_item)
    for prompt, hit in prompts.items():
        yield ItemValue(metric="correct_prompts", item=prompt, value=float(hit), prompt=prompt)


def _prompt_of(item: Mapping[str, Any]) -> str:
    """The metadata as text: images with equal ones are of one prompt."""
    metadata = item["metadata"]
    return metadata if isinstance(metadata, str) else json.dumps(metadata, sort_keys=True)


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
