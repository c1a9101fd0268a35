from __future__ import annotations

import os
import re
import shlex
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.contract import SampleSetWriter, SamplingProtocol, class_requests
from harness.contract.adopt import convert, sample_set_from_npz
from harness.contract.errors import UserError
from harness.planning.generators import existing_samples
from harness.planning.steps import Plan, Step
from harness.running.execute import run_plan
from harness.running.outputs import check_output, digest_of
from harness.store.digests import DigestMemo


def draw(folder: Path, run_seed: int) -> Path:
    requests = class_requests("toy", 1, SamplingProtocol(image_size=4), count=6, num_classes=3, run_seed=run_seed)
    writer = SampleSetWriter(folder, requests, {"name": "grey"}, "npz", 6)
    for shard in writer.missing():
        writer.write(shard, np.full((len(shard), 4, 4, 3), 128, np.uint8))
    writer.finish()
    return folder


def test_the_same_pixels_for_other_requests_count_as_other_samples(tmp_path: Path) -> None:
    memo = DigestMemo(tmp_path / "memo")
    one, again, other = (digest_of("sample", draw(tmp_path / str(i), seed), memo) for i, seed in enumerate((0, 0, 1)))
    assert one == again
    assert one != other


def taken_in(folder: Path, labels: np.ndarray, generator: dict[str, str]) -> Path:
    folder.mkdir()
    np.savez(folder / "theirs.npz", arr_0=np.full((6, 4, 4, 3), 128, np.uint8), labels=labels)
    return sample_set_from_npz(folder / "theirs.npz", folder / "samples", generator=generator).folder


def test_the_same_pixels_with_other_labels_or_from_another_kind_of_generator_count_as_other_samples(tmp_path) -> None:
    memo, drawn, rebuilt = DigestMemo(tmp_path / "memo"), {"kind": "drawn"}, {"kind": "reconstructions"}
    cases = [(np.zeros(6, int), drawn), (np.zeros(6, int), drawn), (np.arange(6), drawn), (np.zeros(6, int), rebuilt)]
    one, again, other_labels, other_kind = (
        digest_of("sample", taken_in(tmp_path / str(i), *case), memo) for i, case in enumerate(cases)
    )
    assert one == again
    assert len({one, other_labels, other_kind}) == 3


def test_the_form_of_a_sample_set_does_not_count(tmp_path: Path) -> None:
    memo, npz = DigestMemo(tmp_path / "memo"), draw(tmp_path / "npz", 0)
    convert(npz, tmp_path / "png", "png")
    assert digest_of("sample", npz, memo) == digest_of("sample", tmp_path / "png", memo)


# --- what a step wrote and is refused: nobody deletes it ---


def stray(path: Path) -> str:
    """Code that a generator runs last: it leaves a picture in `path` of its output."""
    return f"import shutil; shutil.copy(next((arguments.out / 'images').rglob('*.png')), arguments.out / {str(path)!r})"


def end_with(toy, code: str) -> None:
    """The toy's generator writes PNG files, and then runs `code`."""
    toy.edit("my_model.py", "shard_size=2)", "form='png', shard_size=2)")
    toy.edit("my_model.py", "writer.finish()", f"writer.finish()\n{code}")


def refused(toy) -> tuple[str, Path]:
    """The error of the drawing step, and the folder that it says its output is kept in."""
    record = toy.run()
    step = record.step("sample-toy")
    assert step.status == "failed", step
    (kept,) = re.findall(r"is kept in (\S+)[;.]", step.error)
    assert str(toy.runs_dir / ".store" / "work") not in step.error
    log = toy.runs_dir / record.run / step.folder / "log.txt"
    assert "my_model.py" in log.read_text()
    return step.error, Path(kept)


@pytest.mark.parametrize(
    "name", [".DS_Store", "Thumbs.db", "desktop.ini", "._000000.png", "__MACOSX/._a.png", ".ipynb_checkpoints/a.png"]
)
def test_litter_in_the_output_is_no_part_of_it(toy, statuses, name: str) -> None:
    end_with(toy, f"p = arguments.out / 'images' / {name!r}; p.parent.mkdir(exist_ok=True); p.write_bytes(b'x')")
    record = toy.run()
    assert record.status == "finished", record.step("sample-toy").error
    output = toy.runs_dir / record.run / record.step("sample-toy").folder / "output"
    (output / ".DS_Store").touch()  # somebody looked at it
    assert set(statuses(toy.run()).values()) == {"cached"}


def test_samples_that_are_refused_are_kept_and_the_same_command_goes_on_when_they_are_put_right(toy, statuses) -> None:
    end_with(toy, stray(Path("images/grid.png")))
    error, kept = refused(toy)
    assert f"{kept}/images/grid.png: is not in" in error and "remove it" in error
    (kept / "images" / "grid.png").unlink()
    drawn = len(toy.drawn())
    assert statuses(toy.run()) == {"requests-toy": "cached", "sample-toy": "resumed", "score-toy": "run"}
    assert len(toy.drawn()) == drawn


def test_samples_that_were_not_put_right_are_drawn_again_and_both_are_kept(toy) -> None:
    end_with(toy, stray(Path("images") / "grid.png"))
    first, second = refused(toy)[1], refused(toy)[1]
    assert first != second and all((folder / "samples.json").exists() for folder in (first, second))


def test_a_set_with_a_changed_picture_is_kept(toy) -> None:
    end_with(toy, "from PIL import Image; Image.new('RGB', (8, 8)).save(max(arguments.out.glob('images/*.png')))")
    error, kept = refused(toy)
    assert "does not match its hash" in error and len(list(kept.rglob("*.png"))) == 12


def test_images_of_a_generator_that_forgot_its_manifest_can_be_scored_as_the_error_says(toy, monkeypatch) -> None:
    end_with(toy, "(arguments.out / 'samples.json').unlink()")
    error, _ = refused(toy)
    adopt = shlex.split(re.findall(r"images in it can be scored: (.*?) &&", error)[0])
    adopt[adopt.index("adopt") + 1] += "/images"  # where this generator has them
    from harness.contract.__main__ import main

    assert main([word.replace("OUT", str(toy.root / "adopted")) for word in adopt[3:]]) == 0
    assert toy.run(generator=existing_samples(toy.root / "adopted")).status == "finished"


def test_an_npz_without_a_manifest_is_named_to_be_adopted(toy) -> None:
    toy.edit("my_model.py", "writer.finish()", "writer.finish(); (arguments.out / 'samples.json').unlink()")
    error, kept = refused(toy)
    assert f"adopt {kept}/samples.npz OUT --requests" in error


def test_whatever_kind_of_output_is_refused_it_is_kept(toy) -> None:
    step = Step(name="long", kind="train", argv=("{python}", "-c", "open('{out}/a', 'w')"), produces=("model.txt",))
    record, _ = run_plan(Plan(name="p", steps=(step,)), toy.setting())
    assert "did not write model.txt" in record.step("long").error
    assert [path.name for path in toy.setting().store.root.glob("refused/train-*/output/*")] == ["a"]


# --- what is no plain file: found before anything is opened ---


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def a_socket(path: Path) -> None:
    here = os.open(".", os.O_RDONLY)
    os.chdir(path.parent)  # the address of a socket is short
    socket.socket(socket.AF_UNIX).bind(path.name)
    os.fchdir(here)
    os.close(here)


def a_loop(path: Path) -> None:
    path.symlink_to(".")


def the_root(path: Path) -> None:
    path.symlink_to("/")


def a_dangling_link(path: Path) -> None:
    path.symlink_to("nowhere")


def a_link_inside(path: Path) -> None:
    (path.parent / "there").touch()
    path.symlink_to("there")


@pytest.mark.parametrize("make", [a_pipe, a_socket, a_loop, the_root, a_dangling_link, a_link_inside])
@pytest.mark.parametrize("name", ["score.json", "samples.json", "model.txt", "sub/x"])
@pytest.mark.parametrize("kind", ["requests", "sample", "score", "train"])
def test_an_output_is_plain_files_and_folders_or_refused_by_name(
    tmp_path: Path, make: Callable[[Path], None], name: str, kind: str
) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    make(path)
    step = Step(name="s", kind=kind, argv=("x",), produces=(name,))
    with pytest.raises(UserError, match=rf"{name}: is a (named pipe|symbolic link|socket)"):
        check_output(step, tmp_path, {})


def test_an_output_folder_that_is_a_link_is_refused_and_the_next_attempt_begins_afresh(toy) -> None:
    code = "import os; os.rmdir('{out}'); os.symlink('/', '{out}')"
    step = Step(name="s", kind="train", argv=("{python}", "-c", code))
    for _ in range(2):
        record, _ = run_plan(Plan(name="p", steps=(step,)), toy.setting())
        assert "output: is a symbolic link" in record.step("s").error


def test_a_generator_that_leaves_a_pipe_ends_with_a_sentence(toy) -> None:
    end_with(toy, "import os; (arguments.out / 'samples.json').unlink(); os.mkfifo(arguments.out / 'samples.json')")
    error, kept = refused(toy)
    assert f"{kept}/samples.json: is a named pipe" in error
    Image.open(next(kept.rglob("*.png"))).verify()
