"""Folders of the original scorers, both ways."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.contract import BadSamples, Prompt, RequestSet, SampleSet, SamplingProtocol, UserError, prompt_requests
from harness.contract.grid import cut_grid, make_grid
from harness.contract.layouts import Layout, Suite, sample_set_from_layout, write_layout

GENEVAL = Layout(images="{index:05d}/samples/{repeat:05d}.png", metadata="{index:05d}/metadata.jsonl")
GRID = Layout(images="{item}.png", grid=2)
SINGLE = Layout(images="{item}.png")
SUITE = Suite(benchmark="geneval", version=1, protocol=SamplingProtocol(image_size=512))


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
        "dpg", 1, SamplingProtocol(image_size=size), prompts=prompts, repeats=4, layout="{item}/{repeat}.png"
    )


def test_grids_are_cut_into_a_prompts_images_row_by_row(tmp_path: Path) -> None:
    tiles = [np.full((6, 6, 3), value, np.uint8) for value in (1, 2, 3, 4)]
    (tmp_path / "theirs").mkdir()
    Image.fromarray(make_grid(tiles, 2)).save(tmp_path / "theirs" / "226.png")
    picture(tmp_path / "theirs" / "not_a_prompt.png", 0, side=12)
    suite = Suite(benchmark="dpg", version=1, protocol=SamplingProtocol(image_size=512))
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
    return prompt_requests("geneval", 1, SamplingProtocol(image_size=8), prompts=prompts, repeats=2, layout=layout)


def test_the_prompts_record_is_written_beside_its_images_as_the_original_has_it(make_samples, tmp_path: Path) -> None:
    samples = make_samples(geneval_requests(), form="png")
    assert write_layout(samples, tmp_path / "out", GENEVAL) == 4
    line = (tmp_path / "out" / "00001" / "metadata.jsonl").read_text(encoding="utf-8")
    assert json.loads(line) == dict(geneval_requests()[2].meta)
    assert (tmp_path / "out" / "00001" / "samples" / "00001.png").is_file()


def some_of(requests: RequestSet, *ids: str) -> RequestSet:
    """The requests of a set whose images were drawn, say, or could be adopted."""
    kept = [request for request in requests if request.id in {f"{requests.benchmark}/{tail}" for tail in ids}]
    return RequestSet(benchmark=requests.benchmark, version=1, protocol=requests.protocol, requests=kept)


@pytest.mark.parametrize("paths", ["{index:05d}/samples/{repeat:05d}.png", "{item}/{repeat}.png"])
def test_an_incomplete_set_keeps_the_numbers_of_its_prompts_and_images(make_samples, tmp_path: Path, paths) -> None:
    prompts = [Prompt(item=f"{i:05d}", text=f"cow {i}", meta={"prompt": f"cow {i}"}) for i in range(7)]
    everything = prompt_requests("geneval", 1, SamplingProtocol(image_size=8), prompts=prompts, repeats=3, layout=paths)
    drawn = some_of(everything, "00000/1", "00002/0", "00002/2", "00005/2")
    samples = make_samples(drawn, form="png")
    assert write_layout(samples, tmp_path / "out", GENEVAL) == 4
    written = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.png"))
    assert written == [
        "00000/samples/00001.png",
        "00002/samples/00000.png",
        "00002/samples/00002.png",
        "00005/samples/00002.png",
    ]
    for known in (None, everything, drawn):
        out = tmp_path / f"again-{known and len(known)}"
        again = sample_set_from_layout(tmp_path / "out", out, GENEVAL, suite=SUITE, requests=known)
        assert again.ids == samples.ids and again.digest == samples.digest
        assert again.requests is not None and again.requests[-1].prompt == "cow 5"


def test_a_missing_image_leaves_its_place_in_the_grid_black(make_samples, tmp_path: Path) -> None:
    samples = make_samples(some_of(dpg_requests(), "226/0", "226/3", "whoops3/1"), form="png")
    assert write_layout(samples, tmp_path / "out", GRID) == 2
    tiles = cut_grid(np.asarray(Image.open(tmp_path / "out" / "226.png")), 2, 4)
    assert [tile.max() > 0 for tile in tiles] == [True, False, False, True]
    assert np.array_equal(tiles[3], samples.images([1])[0])


def test_prompts_of_another_suite_are_not_taken_for_this_one(tmp_path: Path) -> None:
    """geneval and geneval_long number their prompts alike."""
    folder = original_geneval_folder(tmp_path / "theirs")
    with pytest.raises(BadSamples, match=r"has the prompt 'a photo of cow 0' where geneval has 'a photo of 0 Füchse'"):
        sample_set_from_layout(folder, tmp_path / "out", GENEVAL, suite=SUITE, requests=geneval_requests())


def test_a_prompt_may_hold_any_separator_of_unicode(tmp_path: Path) -> None:
    folder = original_geneval_folder(tmp_path / "theirs")
    meta = {"prompt": "a cow\u2028\u2029\x85and a dog"}
    (folder / "00000" / "metadata.jsonl").write_text(json.dumps(meta, ensure_ascii=False) + "\n", encoding="utf-8")
    samples = sample_set_from_layout(folder, tmp_path / "out", GENEVAL, suite=SUITE)
    assert samples.requests is not None and samples.requests[0].prompt == meta["prompt"]


def test_images_beyond_those_that_count_are_strays(tmp_path: Path) -> None:
    for repeat in range(6):
        picture(tmp_path / "theirs" / "226" / f"{repeat}.png", repeat)
    layout = Layout.from_mapping({"images": "{item}/{repeat}.png", "repeats": 4}, "benchmark.yaml")
    suite = Suite(benchmark="dpg", version=1, protocol=SamplingProtocol(image_size=512))
    samples = sample_set_from_layout(
        tmp_path / "theirs", tmp_path / "out", layout, suite=suite, requests=dpg_requests()
    )
    assert samples.ids == [f"dpg/226/{repeat}" for repeat in range(4)] and samples.generator["strays"] == 2


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
        (
            lambda folder: (folder / "00000" / "metadata.jsonl").write_text("{}\n"),
            "not one JSON object with a 'prompt'",
        ),
        (lambda folder: (folder / "00000" / "metadata.jsonl").write_text('{"prompt": null}\n'), "is not text"),
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


def test_an_empty_prompt_is_a_prompt(tmp_path: Path) -> None:
    folder = original_geneval_folder(tmp_path / "theirs")
    (folder / "00000" / "metadata.jsonl").write_text('{"prompt": ""}\n')
    samples = sample_set_from_layout(folder, tmp_path / "out", GENEVAL, suite=SUITE)
    assert samples.requests is not None and samples.requests[0].prompt == ""


def test_a_linked_prompt_folder_is_a_prompt_like_any_other(tmp_path: Path) -> None:
    folder = original_geneval_folder(tmp_path / "theirs")
    original = sample_set_from_layout(folder, tmp_path / "first", GENEVAL, suite=SUITE)
    (folder / "00003").rename(tmp_path / "elsewhere")
    (folder / "00003").symlink_to(tmp_path / "elsewhere")
    samples = sample_set_from_layout(folder, tmp_path / "out", GENEVAL, suite=SUITE)
    assert samples.digest == original.digest and samples.request_digest == original.request_digest


def test_a_prompt_folder_that_is_a_link_to_nothing_is_named(tmp_path: Path) -> None:
    folder = original_geneval_folder(tmp_path / "theirs")
    (folder / "00012").symlink_to(tmp_path / "gone")
    with pytest.raises(BadSamples, match="00012: is a link to something that is not there"):
        sample_set_from_layout(folder, tmp_path / "out", GENEVAL, suite=SUITE)


def test_hidden_names_are_no_images_of_a_prompt(tmp_path: Path) -> None:
    folder = original_geneval_folder(tmp_path / "theirs")
    for name in (
        "00000/samples/._0000.png",
        "00000/samples/.ipynb_checkpoints/0000-checkpoint.png",
        "__MACOSX/00000/x",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"no image")
    assert len(sample_set_from_layout(folder, tmp_path / "out", GENEVAL, suite=SUITE)) == 4
    items = tmp_path / "items"
    picture(items / "226.png", 1)
    picture(items / "._226.png", 2)
    suite = Suite(benchmark="dpg", version=1, protocol=SamplingProtocol(image_size=512))
    samples = sample_set_from_layout(items, tmp_path / "single", SINGLE, suite=suite, requests=dpg_requests())
    assert samples.ids == ["dpg/226/0"] and samples.generator["strays"] == 0


@pytest.mark.parametrize("other", ["0000.jpg", "00000.png", "0.webp"])
def test_two_pictures_for_one_place_are_both_named(tmp_path: Path, other: str) -> None:
    folder = original_geneval_folder(tmp_path / "theirs")
    picture(folder / "00000" / "samples" / other, 7)
    with pytest.raises(BadSamples, match=r"is for the same image as .*; remove one of the two") as caught:
        sample_set_from_layout(folder, tmp_path / "out", GENEVAL, suite=SUITE)
    assert f"samples/{other}" in str(caught.value) and "samples/0000.png" in str(caught.value)


@pytest.mark.parametrize("name", ["00003/samples/0002.gif", "00003/samples/0002"])
def test_an_image_of_another_kind_in_the_place_of_a_prompts_image_is_refused(tmp_path: Path, name: str) -> None:
    folder = original_geneval_folder(tmp_path / "theirs")
    Image.new("RGB", (8, 8)).save(folder / name, format="GIF")
    Image.new("RGB", (8, 8)).save(folder / "00003" / "animation.gif")  # no image of a prompt
    with pytest.raises(BadSamples, match=rf"holds 1 image of another kind \(the first is {name}\)"):
        sample_set_from_layout(folder, tmp_path / "out", GENEVAL, suite=SUITE)


WRONG_METADATA = {
    "latin-1": '{"prompt": "Füchse"}'.encode("latin-1"),
    "UTF-16": '{"prompt": "cow"}'.encode("utf-16"),
    "half of a surrogate pair": rb'{"prompt": "\ud800"}',
    "a number beyond float": b'{"prompt": "cow", "count": 1e999}',
    "deep": b'{"prompt": "cow", "include": ' + b"[" * 5000 + b"]" * 5000 + b"}",
    "two objects": b'{"prompt": "cow"}\n{"prompt": "cow"}',
    "nothing": b"",
    "a number": b"1",
    "bytes": bytes(range(256)),
}


@pytest.mark.parametrize("content", WRONG_METADATA.values(), ids=WRONG_METADATA.keys())
def test_metadata_that_cannot_be_read_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    folder = original_geneval_folder(tmp_path / "theirs")
    (folder / "00000" / "metadata.jsonl").write_bytes(content)
    with pytest.raises(BadSamples, match=r"00000/metadata\.jsonl: is not one JSON object with a 'prompt'"):
        sample_set_from_layout(folder, tmp_path / "out", GENEVAL, suite=SUITE)


def test_metadata_as_other_programs_write_it_is_read(tmp_path: Path) -> None:
    folder = original_geneval_folder(tmp_path / "theirs")
    (folder / "00000" / "metadata.jsonl").write_bytes(b'\xef\xbb\xbf{"prompt": "cow", "weight": NaN}\r\n')
    samples = sample_set_from_layout(folder, tmp_path / "out", GENEVAL, suite=SUITE)
    assert samples.requests is not None and samples.requests[0].meta == {"prompt": "cow", "weight": None}


def test_names_that_are_not_unicode_are_strays_and_their_folder_may_have_one(tmp_path: Path) -> None:
    folder = tmp_path / "th\udce9irs"
    picture(folder / "226.png", 1)
    picture(folder / "caf\udce9.png", 2)
    suite = Suite(benchmark="dpg", version=1, protocol=SamplingProtocol(image_size=512))
    samples = sample_set_from_layout(folder, tmp_path / "out", SINGLE, suite=suite, requests=dpg_requests())
    assert samples.ids == ["dpg/226/0"] and samples.generator["strays"] == 1
    assert SampleSet.open(samples.folder).generator["source"] == "th\ufffdirs"
