"""Prompt files of benchmarks, as they are published, read into prompts.

They belong to other projects, so they are assets. `requests: {kind: prompts}` in benchmark.yaml says how to read them:

    assets: [wise-culture, wise-science]    one after the other
    form: list          "lines": a JSON object per line; "list": a JSON list of objects; "map": an object, key -> prompt
    prompt: Prompt      the field with the text (not for "map")
    item: prompt_id     the field that names the prompt; without it, prompts are numbered: 00000, 00001, ...
    count: 1000         how many prompts there must be
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from harness.contract.errors import MissingAsset, UserError
from harness.contract.parse import parse_json
from harness.contract.requests import Prompt
from harness.contract.text_files import decode_text, json_lines
from harness.scoring.scorer import Assets

FORMS = ("lines", "list", "map")


def read_prompts(
    folder: Assets,
    *,
    assets: Sequence[str],
    form: str,
    count: int,
    prompt: str = "prompt",
    item: str | None = None,
) -> list[Prompt]:
    """The prompts of a benchmark, in the order of its files; a record's fields become `meta`.

    Args:
        folder: where the files are.
        assets: their names, in order.
        form: see the module.
        count: how many there must be.
        prompt: the field with the text.
        item: the field with the name.
    Raises:
        MissingAsset: a file is not there, or is not what it should be.
    """
    prompts: list[Prompt] = []
    for name in assets:
        file = folder.file(name)
        for number, row in enumerate(_records(file, form)):
            try:
                text = row["prompt" if form == "map" else prompt]
                if not isinstance(text, str) or not text.strip():
                    raise TypeError("text for its prompt")
                label = f"{len(prompts):05d}" if form == "lines" and item is None else str(row[item or "item"])
            except (KeyError, TypeError) as error:
                raise MissingAsset(f"{file}, prompt {number}: has no {error}; {_again(name)}") from error
            prompts.append(Prompt(item=label, text=text, meta={} if form == "map" else row))
    if len(prompts) != count:
        raise MissingAsset(f"{file}: {len(prompts)} prompts were read where there are {count}; {_again(assets[-1])}")
    return prompts


def _records(file: Path, form: str) -> Iterator[dict[str, Any]]:
    try:
        text = decode_text(file.read_bytes())
        if form == "lines":
            yield from (row for _, row in json_lines(text))
        elif form == "list":
            yield from parse_json(text, strict=False)
        elif form == "map":
            prompts = parse_json(text, strict=False)
            yield from ({"item": Path(key).stem, "prompt": prompt} for key, prompt in prompts.items())
        else:
            raise UserError(f"requests.form is {form!r}; write one of {', '.join(FORMS)}")
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise MissingAsset(f"{file}: cannot be read as prompts ({error}); {_again(file.parent.name)}") from error


def _again(name: str) -> str:
    return f"fetch it again: harness assets pull {name}"
