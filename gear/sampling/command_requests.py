"""Request sets from the command line, for images without a benchmark."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from harness.contract.errors import UserError
from harness.contract.parse import parse_json
from harness.contract.requests import Prompt, RequestSet, SamplingProtocol, class_requests, prompt_requests
from harness.contract.text_files import csv_rows, decode_text, json_lines, one_text, text_lines

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
    texts = [*(_given(text) for text in prompts), *(read_prompts(file) if file else [])]
    if not texts:
        raise UserError(
            "nothing to draw was given; give a request set (--requests DIR), --prompt TEXT, or --prompts FILE."
        )
    asked = [Prompt(item=f"{index:06d}", text=text) for index, text in enumerate(texts)]
    return prompt_requests(NAME, 1, protocol, prompts=asked, repeats=repeats, run_seed=seed)


def _given(text: str) -> str:
    try:
        return one_text(text, "--prompt")
    except ValueError as error:
        raise UserError(f"{error}; give a text.") from None


FIELDS = ("caption", "prompt")


def read_prompts(path: Path) -> list[str]:
    """One prompt per line; of .jsonl, .json (a list), .csv and .tsv the column or field `caption` or `prompt`.

    Raises:
        UserError: naming the line that holds no prompt.
    """
    try:
        texts = list(_prompts(decode_text(path.read_bytes()), path.suffix.lower()))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give a file of prompts, one per line.") from None
    except ValueError as error:
        raise UserError(f"{path}, {error}; correct the file.") from None
    if not texts:
        raise UserError(f"{path}: holds no prompts; give one per line.")
    return texts


def _prompts(text: str, suffix: str) -> Iterator[str]:
    if suffix == ".jsonl":
        yield from (_prompt(value, f"line {number}") for number, value in json_lines(text))
    elif suffix == ".json":
        yield from (_prompt(value, f"entry {number}") for number, value in enumerate(_listed(text), start=1))
    elif suffix in (".csv", ".tsv"):
        yield from (_prompt(row, f"line {number}") for number, row in csv_rows(text, FIELDS))
    else:
        yield from (line.strip() for _, line in text_lines(text))


def _listed(text: str) -> list[Any]:
    try:
        values = parse_json(text, strict=False)
    except ValueError as error:
        raise ValueError(f"which is not JSON ({error}); name a file with one object per line .jsonl") from None
    if not isinstance(values, list):
        raise ValueError("which holds no list; write [prompt, prompt, ...]")
    return values


def _prompt(value: Any, place: str) -> str:
    """A text, or the text of an object: its caption, else its prompt."""
    if isinstance(value, dict):
        name = next((name for name in FIELDS if name in value), None)
        if name is None:
            raise ValueError(f"{place}: is an object without 'caption' or 'prompt'")
        return one_text(value[name], f"{place}, {name}")
    return one_text(value, place)
