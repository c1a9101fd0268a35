"""Published prompt files, in the three forms they come in, become prompts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.catalog.benchmarks import Catalog
from harness.catalog.project import find_project
from harness.contract.errors import MissingAsset
from harness.contract.requests import SamplingProtocol, prompt_requests
from harness.scoring.make_requests import make_requests
from harness.scoring.prompt_files import read_prompts
from harness.scoring.scorer import Assets

SHARED = Path(__file__).parents[4] / "shared" / "data"


def assets(folder: Path, **files: str) -> Assets:
    for name, text in files.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "file").write_text(text, encoding="utf-8")
    return Assets(folder)


def test_lines_are_numbered_and_keep_their_record(tmp_path: Path) -> None:
    rows = [{"tag": "colors", "prompt": "a red\ncow\u2028"}, {"tag": "counting", "prompt": "two cows"}]
    given = assets(tmp_path, prompts="".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    prompts = read_prompts(given, form="lines", count=2, assets=["prompts"])
    assert [(p.item, p.text, dict(p.meta)) for p in prompts] == [
        ("00000", "a red\ncow\u2028", rows[0]),
        ("00001", "two cows", rows[1]),
    ]


def test_lists_follow_each_other_and_a_map_takes_the_file_name_for_a_key(tmp_path: Path) -> None:
    record = {"Prompt": "the round pastry", "prompt_id": 7}
    given = assets(tmp_path, a=json.dumps([record]), b=json.dumps([{**record, "prompt_id": 8}]), c='{"226.txt": "x"}')
    listed = read_prompts(given, form="list", count=2, prompt="Prompt", item="prompt_id", assets=["a", "b"])
    assert [prompt.item for prompt in listed] == ["7", "8"]
    (mapped,) = read_prompts(given, form="map", count=1, assets=["c"])
    assert (mapped.item, mapped.text) == ("226", "x")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_is_no_part_of_a_prompt(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "file").write_bytes('{"prompt": "naïve"}\r\n'.encode(encoding))
    (prompt,) = read_prompts(Assets(tmp_path), form="lines", count=1, assets=["prompts"])
    assert prompt.text == "naïve"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "cannot be read"),
        ("[1]", "prompt 0"),
        ('[{"prompt": null, "item": 1}]', "no text"),
        ('[{"prompt": " ", "item": 1}]', "no text"),
        ("[]", "0 prompts were read where there are 1"),
    ],
)
def test_a_damaged_file_is_named_with_the_command(tmp_path: Path, text: str, sentence: str) -> None:
    given = assets(tmp_path, prompts=text)
    with pytest.raises(MissingAsset, match=sentence) as caught:
        read_prompts(given, form="list", count=1, assets=["prompts"])
    assert "harness assets pull prompts" in str(caught.value)


PUBLISHED = {
    "geneval": ({"geneval-prompts": "geneval/evaluation_metadata.jsonl"}, 2212, "00552/samples/00003.png"),
    "geneval_long": (
        {"geneval-prompts-long": "geneval/evaluation_metadata_long.jsonl"},
        2212,
        "00552/samples/00003.png",
    ),
    "dpg": ({"dpg-prompts": "dpgbench/dpgbench_prompts.json"}, 4260, None),
    "wise": (
        {
            "wise-cultural-common-sense": "wise/cultural_common_sense_verified.json",
            "wise-spatio-temporal-reasoning": "wise/spatio-temporal_reasoning_verified.json",
            "wise-natural-science": "wise/natural_science_verified.json",
        },
        1000,
        "1000.png",
    ),
}
HERE = {name: case for name, case in PUBLISHED.items() if SHARED.is_dir()}


@pytest.mark.parametrize("name", HERE)
def test_the_published_files_become_the_layout_of_the_original(name: str, tmp_path: Path) -> None:
    files, count, last = HERE[name]
    for asset, path in files.items():
        (tmp_path / asset).mkdir()
        (tmp_path / asset / Path(path).name).write_bytes((SHARED / path).read_bytes())
    benchmark = Catalog.load(find_project()).benchmark(name)
    spec: dict[str, Any] = {
        "benchmark": name,
        "version": 1,
        "protocol": {"image_size": 512},
        "requests": dict(benchmark.requests),
        "limit": None,
        "run_seed": 0,
    }
    requests = make_requests(spec, Assets(tmp_path))
    assert len(requests) == count and len({request.seed for request in requests}) == count
    assert last is None or requests[-1].path == last


def test_prompts_keep_their_seed_when_there_are_fewer_of_them(tmp_path: Path) -> None:
    given = assets(tmp_path, prompts='["a"]', two=json.dumps([{"prompt": "x"}, {"prompt": "y"}]))
    prompts = read_prompts(given, form="list", count=2, item="prompt", assets=["two"])
    protocol = SamplingProtocol(image_size=8)
    both = prompt_requests("toy", 1, protocol, prompts=prompts)
    second = prompt_requests("toy", 1, protocol, prompts=prompts[1:])
    assert both[1].seed == second[0].seed
