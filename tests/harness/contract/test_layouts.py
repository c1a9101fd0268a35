"""Folders of the original scorers, both ways."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.contract import BadSamples, Prompt, Protocol, RequestSet, SampleSet, UserError, prompt_requests
from harness.contract.grid import cut_grid, make_grid
from harness.contract.layouts import Layout, Suite, sample_set_from_layout, write_layout

GENEVAL = Layout(images="{index:05d}/samples/{repeat:05d}.png", metadata="{index:05d}/metadata.jsonl")
GRID = Layout(images="{item}.png", grid=2)
SINGLE = Layout(images="{item}.png")
SUITE = Suite(benchmark="geneval", version=1, protocol=Protocol(image_size=512))


def picture(path: Path, value: int, side: int = 8) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((side, side, 3), value, np.uint8)).save(path)


def original_geneval_folder(folder: Path) -> Path:
    """As the original tool writes it: four digits, a grid beside the samples, numbers with gaps."""
    for index in (0, 3):
        meta = {"tag": "single_object", "include": [{"class": "cow", "count": 1}], "prompt": f"a photo of cow {index}"}
        (folder / f"{index:05d}").mkdir(parents=True)
        (folder / f"{index:05d}" / "metadata.jsonl").write_text(json.dumps(meta) + "\n")
        for repeat in range(2):
            picture(folder / f"{index:05d}" / "samples" / f"{repeat:04d}.png", 10 * index + repeat)
        picture(folder / f"{index:05d}" / "grid.png", 255, side=16)
    return folder


def test_a_folder_of_the_original_tool_says_by_itself_what_was_asked_for(tmp_path: Path) -> None:
    folder = original_geneval_folder(tmp_path / "theirs")
    samples = sample_set_from_layout(folder, tmp_path / "out", GENEVAL, suite=SUITE)
    assert samples.requests is not None and samples.image_size == 8 and samples.form == "png"
    assert samples.ids == ["geneval/00000/0", "geneval/00000/1", "geneval/00003/0", "geneval/00003/1"]
    assert [request.prompt for request in samples.requests] == ["a photo of cow 0"] * 2 + ["a photo of cow 3"] * 2
    assert samples.requests[0].meta["include"] == [{"class": "cow", "count": 1}]
    assert [int(image[0, 0, 0]) for image in samples.images(range(4))] == [0, 1, 30, 31]
    samples.validate()


def dpg_requests(size: int = 8) -> RequestSet:
    prompts = [Prompt(item=name, text=f"prompt {name}") for name in ("partiprompts1", "226", "whoops3")]
    return prompt_requests(
        "dpg", 1, Protocol(image_size=size), prompts=prompts, repeats=4, layout="{item}/{repeat}.png"
    )


def test_grids_are_cut_into_a_prompts_images_row_by_row(tmp_path: Path) -> None:
    tiles = [np.full((6, 6, 3), value, np.uint8) for value in (1, 2, 3, 4)]
    (tmp_path / "theirs").mkdir()
    Image.fromarray(make_grid(tiles, 2)).save(tmp_path / "theirs" / "226.png")
    picture(tmp_path / "theirs" / "not_a_prompt.png", 0, side=12)
    suite = Suite(benchmark="dpg", version=1, protocol=Protocol(image_size=512))
    samples = sample_set_from_layout(tmp_path / "theirs", tmp_path / "out", GRID, suite=suite, requests=dpg_requests())
    assert samples.ids == [f"dpg/226/{tile}" for tile in range(4)] and samples.image_size == 6
    assert [int(image[0, 0, 0]) for image in samples.images(range(4))] == [1, 2, 3, 4]
    assert samples.generator["missing"] == 8 and samples.generator["strays"] == 1


def test_ours_written_for_the_original_comes_back_the_same(make_samples, tmp_path: Path) -> None:
    for layout, requests in ((GRID, dpg_requests()), (GENEVAL, geneval_requests())):
        name = requests.benchmark
        samples: SampleSet = make_samples(requests, form="png", name=f"{name}-samples")
        write_layout(samples, tmp_path / name, layout)
        suite = Suite(benchmark=name, version=1, protocol=requests.protocol)
        again = sample_set_from_layout(
            tmp_path / name, tmp_path / f"{name}-again", layout, suite=suite, requests=requests
        )
        assert again.digest == samples.digest and again.ids == samples.ids


def geneval_requests() -> RequestSet:
    records = [{"tag": "colors", "include": [], "prompt": f"a photo of {i}\nFüchse"} for i in range(2)]
    prompts = [Prompt(item=f"{i:05d}", text=str(row["prompt"]), meta=row) for i, row in enumerate(records)]
    layout = "{index:05d}/samples/{repeat:05d}.png"
    return prompt_requests("geneval", 1, Protocol(image_size=8), prompts=prompts, repeats=2, layout=layout)


def test_the_prompts_record_is_written_beside_its_images_as_the_original_has_it(make_samples, tmp_path: Path) -> None:
    samples = make_samples(geneval_requests(), form="png")
    assert write_layout(samples, tmp_path / "out", GENEVAL) == 4
    line = (tmp_path / "out" / "00001" / "metadata.jsonl").read_text(encoding="utf-8")
    assert json.loads(line) == dict(geneval_requests()[2].meta)
    assert (tmp_path / "out" / "00001" / "samples" / "00001.png").is_file()


def test_the_manifest_of_a_png_set_already_has_the_paths_of_the_original(make_samples) -> None:
    samples = make_samples(geneval_requests(), form="png")
    assert (samples.folder / "images" / "00000" / "samples" / "00001.png").is_file()


@pytest.mark.parametrize(
    ("break_it", "sentence"),
    [
        (
            lambda folder: picture(folder / "00000" / "samples" / "0007.png", 1, side=9),
            "bring all pictures to one size",
        ),
        (lambda folder: (folder / "00000" / "metadata.jsonl").write_text("{}\n"), "has a 'prompt'"),
        (lambda folder: (folder / "00000" / "samples" / "0000.png").write_bytes(b"no"), "cannot be decoded"),
    ],
)
def test_a_folder_that_is_not_as_it_should_be_is_refused_with_the_file(tmp_path: Path, break_it, sentence: str) -> None:
    folder = original_geneval_folder(tmp_path / "theirs")
    break_it(folder)
    with pytest.raises(BadSamples, match=sentence) as caught:
        sample_set_from_layout(folder, tmp_path / "out", GENEVAL, suite=SUITE)
    assert "00000" in str(caught.value)


def test_a_folder_laid_out_otherwise_names_what_is_expected(tmp_path: Path) -> None:
    picture(tmp_path / "theirs" / "1.png", 0)
    with pytest.raises(BadSamples, match="another --layout"):
        sample_set_from_layout(tmp_path / "theirs", tmp_path / "out", GENEVAL, suite=SUITE)


def test_several_images_do_not_fit_where_there_is_room_for_one(make_samples, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="room for one"):
        write_layout(make_samples(dpg_requests()), tmp_path / "out", SINGLE)


def test_missing_tiles_of_a_grid_are_black() -> None:
    grid = make_grid([np.full((2, 2, 3), 9, np.uint8)], 2)
    assert [int(tile.max()) for tile in cut_grid(grid, 2, 4)] == [9, 0, 0, 0]


def test_a_layout_with_an_unknown_place_is_refused() -> None:
    with pytest.raises(UserError, match="prompt"):
        Layout.from_mapping({"images": "{prompt}.png"}, "benchmark.yaml")
