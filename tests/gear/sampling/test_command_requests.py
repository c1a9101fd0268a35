"""Files of prompts, as people save them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gear.sampling.command_requests import prompt_request_set, read_prompts
from harness.contract.errors import UserError
from harness.contract.requests import SamplingProtocol

PROMPTS = ["a cat, red", "ein Käfer"]
ROWS = [{"prompt": text} for text in PROMPTS]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("x.txt", "a cat, red\r\n\r\n ein Käfer \r\n"),
        ("x", "a cat, red\nein Käfer"),
        ("x.json", json.dumps(PROMPTS)),
        ("x.json", json.dumps(ROWS, indent=2, ensure_ascii=False)),
        ("x.JSON", json.dumps([{"caption": text, "prompt": "other"} for text in PROMPTS])),
        ("x.jsonl", "\n".join(map(json.dumps, ROWS))),
        ("x.jsonl", "\n\n".join(map(json.dumps, PROMPTS))),
        ("x.csv", 'id,prompt\n1,"a cat, red"\n2,ein Käfer\n'),
        ("x.csv", "prompt;id\na cat, red;1\nein Käfer;2\n"),
        ("x.tsv", "caption\tid\na cat, red\t1\nein Käfer\t2\n"),
    ],
)
def test_prompts_are_read_from_what_people_have(tmp_path: Path, name: str, text: str, encoding: str) -> None:
    (tmp_path / name).write_bytes(text.encode(encoding))
    assert read_prompts(tmp_path / name) == PROMPTS


@pytest.mark.parametrize(
    ("name", "data", "sentence"),
    [
        ("x.txt", "a cat\ncaf\xe9".encode("latin-1"), "line 2: is not UTF-8"),
        ("x.txt", "a cat".encode("utf-16-le"), "line 1: holds a NUL character"),
        ("x.txt", b" \n\n", "holds no prompts"),
        ("x.json", b"[]", "holds no prompts"),
        ("x.json", b'{"prompt": "a cat"}', "holds no list"),
        ("x.json", b'{"prompt": "a cat"}\n{"prompt": "a dog"}', "is not JSON .*jsonl"),
        ("x.json", b'["a", null]', "entry 2: holds null"),
        ("x.json", b'[["a"]]', "entry 1: holds list"),
        ("x.jsonl", b'{"prompt": "a"}\n{"prompt": null}', "line 2, prompt: holds null"),
        ("x.jsonl", b'{"prompt": "a"}\n\n{"caption": " "}', "line 3, caption: is blank"),
        ("x.jsonl", b'{"text": "a"}', "line 1: is an object without 'caption' or 'prompt'"),
        ("x.jsonl", b'{"prompt": "\\ud800"}', "line 1: is not JSON .*surrogate"),
        ("x.jsonl", b"a cat", "line 1: is not JSON"),
        ("x.csv", b"a cat, red\n", "line 1: the header .* has no column"),
        ("x.csv", b"prompt\na cat, red\n", "line 2: has 2 fields"),
    ],
)
def test_what_holds_no_prompt_is_refused_with_its_place(tmp_path: Path, name: str, data: bytes, sentence: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=rf"{name}.*{sentence}"):
        read_prompts(tmp_path / name)


def test_a_folder_or_a_blank_text_is_no_prompt(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        read_prompts(tmp_path)
    for text in ("", " ", "\udcff"):
        with pytest.raises(UserError, match="--prompt: "):
            prompt_request_set(SamplingProtocol(image_size=8), prompts=["a", text], file=None, repeats=1, seed=0)
