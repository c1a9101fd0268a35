"""Request sets from the command line, for images without a benchmark."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from harness.contract.errors import UserError
from harness.contract.requests import Prompt, RequestSet, SamplingProtocol, class_requests, prompt_requests

NAME = "gear-sample"
"""Takes the place of a benchmark's id."""


def class_request_set(
    protocol: SamplingProtocol,
    *,
    count: int | None,
    per_class: int | None,
    num_classes: int,
    labels: LabelOrder,
    seed: int,
) -> RequestSet:
    """`per_class` images of every class, or `count` with random (as published) or balanced labels."""
    if per_class is not None:
        count, labels = per_class * num_classes, "balanced"
    if count is None:
        raise UserError("nothing to draw was given; give a request set (--requests DIR), --count N, or --per-class N.")
    return class_requests(NAME, 1, protocol, count=count, num_classes=num_classes, labels=labels, run_seed=seed)


LabelOrder = Literal["random", "balanced"]


def prompt_request_set(
    protocol: SamplingProtocol, *, prompts: Sequence[str], file: Path | None, repeats: int, seed: int
) -> RequestSet:
    """`repeats` images of each prompt, given one by one or in a file."""
    texts = [*prompts, *(read_prompts(file) if file else [])]
    if not texts:
        raise UserError(
            "nothing to draw was given; give a request set (--requests DIR), --prompt TEXT, or --prompts FILE."
        )
    asked = [Prompt(item=f"{index:06d}", text=text) for index, text in enumerate(texts)]
    return prompt_requests(NAME, 1, protocol, prompts=asked, repeats=repeats, run_seed=seed)


def read_prompts(path: Path) -> list[str]:
    """One prompt per line; of a `.jsonl` file the field `caption` or `prompt` of each line."""
    try:
        lines = [line for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as text ({error}); give a file of prompts, one per line.") from None
    if path.suffix != ".jsonl":
        return [line.strip() for line in lines]
    try:
        rows = [json.loads(line) for line in lines]
        return [str(row["caption"] if "caption" in row else row["prompt"]) for row in rows]
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path}: each line must be an object with 'caption' or 'prompt'; correct the file.") from None
