import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from harness.contract import SampleSet, SampleSetWriter, SamplingProtocol, class_requests
from harness.contract.errors import BadSamples, EnvironmentFailure, UserError

GENERATOR = {"name": "noise", "size": (1, 2)}


def draw(requests, start=0, stop=None):
    size = requests.protocol.image_size
    chosen = list(requests)[start:stop]
    return np.stack([np.random.default_rng(r.seed).integers(0, 256, (size, size, 3), np.uint8) for r in chosen])


def writer_for(folder, requests, **options):
    return SampleSetWriter(folder, requests, GENERATOR, **{"shard_size": 4, **options})


def write_all(writer, *shards):
    for shard in shards or writer.missing():
        writer.write(shard, draw(writer.request_set, shard.start, shard.stop))


def test_the_shards_cover_the_requests_in_order(tmp_path, class_set):
    shards = writer_for(tmp_path, class_set).missing()
    assert [(shard.index, shard.start, shard.stop, len(shard)) for shard in shards] == [
        (0, 0, 4, 4), (1, 4, 8, 4), (2, 8, 10, 2)
    ]  # fmt: skip
    assert [request for shard in shards for request in shard.requests] == list(class_set)


def test_shards_of_the_default_size_stay_below_64_mib(tmp_path):
    for size, expected in ((8, 256), (256, 256), (512, 85), (16_384, 1)):
        requests = class_requests("b", 1, SamplingProtocol(image_size=size), count=300, num_classes=2)
        shards = SampleSetWriter(tmp_path / str(size), requests, {}).missing()
        assert len(shards[0]) == expected


def test_ranks_share_the_shards_without_talking(tmp_path, class_set):
    ranks = [writer_for(tmp_path, class_set) for _ in range(2)]
    write_all(ranks[0], *ranks[0].missing(rank=0, num_ranks=2))  # done before the other one asks
    assert [shard.index for shard in ranks[1].missing(rank=1, num_ranks=2)] == [1]
    write_all(ranks[1], *ranks[1].missing(rank=1, num_ranks=2))
    assert len(ranks[0].finish()) == 10


def test_a_finished_set_has_the_documented_files_and_no_others(tmp_path, class_set):
    for form, pixels in (("npz", "samples.npz"), ("png", "images")):
        writer = writer_for(tmp_path / form, class_set, form=form)
        write_all(writer)
        writer.finish()
        files = {"samples.json", "index.jsonl", "requests.json", "requests.jsonl", pixels}
        assert {path.name for path in (tmp_path / form).iterdir()} == files


def test_the_same_command_again_draws_only_what_is_missing(tmp_path, class_set):
    first = writer_for(tmp_path, class_set)
    write_all(first, first.missing()[1])
    again = writer_for(tmp_path, class_set)
    assert [shard.index for shard in again.missing()] == [0, 2]
    write_all(again)
    np.testing.assert_array_equal(again.finish().images(range(10)), draw(class_set))


def test_the_same_command_after_the_end_changes_nothing(tmp_path, class_set):
    writer = writer_for(tmp_path, class_set)
    write_all(writer)
    digest = writer.finish().digest
    assert writer.missing() == []
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    again = writer_for(tmp_path, class_set)
    assert again.missing() == []
    assert again.finish().digest == digest
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


def test_a_folder_keeps_its_shard_size(tmp_path, class_set):
    write_all(writer_for(tmp_path, class_set), writer_for(tmp_path, class_set).missing()[0])
    assert [len(shard) for shard in writer_for(tmp_path, class_set, shard_size=3).missing()] == [4, 2]


def test_an_unfinished_set_can_be_finished_in_the_other_form(tmp_path, class_set):
    write_all(writer_for(tmp_path, class_set))
    samples = writer_for(tmp_path, class_set, form="png").finish()
    samples.validate()
    assert samples.form == "png"


def test_finishing_too_early_says_what_is_missing(tmp_path, class_set):
    writer = writer_for(tmp_path, class_set)
    write_all(writer, writer.missing()[0])
    with pytest.raises(UserError, match=r"2 of 3 shards are missing \(the first is shard-00001\.npz\)"):
        writer.finish()
    assert not (tmp_path / "samples.json").exists()


@pytest.mark.parametrize(
    ("images", "found"),
    [
        (np.zeros((3, 8, 8, 3), np.uint8), r"\(3, 8, 8, 3\) uint8"),
        (np.zeros((4, 8, 8, 3), np.float32), r"\(4, 8, 8, 3\) float32"),
        (np.zeros((4, 3, 8, 8), np.uint8), r"\(4, 3, 8, 8\) uint8"),
        (np.zeros((4, 9, 9, 3), np.uint8), r"\(4, 9, 9, 3\) uint8"),
        ([[1]], "list"),
    ],
)
def test_other_images_than_announced_are_refused(tmp_path, class_set, images, found):
    writer = writer_for(tmp_path, class_set)
    with pytest.raises(
        BadSamples, match=rf"shard 0 takes a NumPy array \(4, 8, 8, 3\) uint8, not {found}; correct the gen"
    ):
        writer.write(writer.missing()[0], images)
    assert len(writer.missing()) == 3


def test_images_in_another_memory_layout_are_stored_all_the_same(tmp_path, class_set):
    writer = writer_for(tmp_path, class_set, shard_size=10)
    (shard,) = writer.missing()
    writer.write(shard, np.asfortranarray(draw(class_set)))
    np.testing.assert_array_equal(writer.finish().images(range(10)), draw(class_set))


def test_an_unknown_form_is_refused(tmp_path, class_set):
    with pytest.raises(UserError, match="'npz' or 'png', not 'jpg'"):
        writer_for(tmp_path, class_set, form="jpg")


# --- folders of somebody else ----------------------------------------------------------------------------------------


def test_unfinished_work_of_another_request_set_is_refused(tmp_path, class_set):
    write_all(writer_for(tmp_path, class_set), writer_for(tmp_path, class_set).missing()[0])
    for other in (class_set.limit(9), class_set.with_protocol(cfg_scale=2.0)):
        with pytest.raises(UserError, match="holds unfinished work that is not of this request set and this generator"):
            writer_for(tmp_path, other)


def test_unfinished_work_of_another_generator_is_refused(tmp_path, class_set):
    writer_for(tmp_path, class_set)
    with pytest.raises(UserError, match="choose another folder, or delete"):
        SampleSetWriter(tmp_path, class_set, {**GENERATOR, "seed": 1})


def test_finished_samples_of_another_origin_are_refused(tmp_path, class_set):
    writer = writer_for(tmp_path, class_set)
    write_all(writer)
    writer.finish()
    with pytest.raises(UserError, match="samples of another request set"):
        writer_for(tmp_path, class_set.limit(9))
    with pytest.raises(UserError, match="of another generator or of other options"):
        SampleSetWriter(tmp_path, class_set, {"name": "other"})
    with pytest.raises(UserError, match=r"in the form npz; run python -m harness\.contract convert .* --form png"):
        writer_for(tmp_path, class_set, form="png")


@pytest.mark.parametrize("name", ["samples.npz", "images", "index.jsonl", "requests.json", "work"])
def test_files_of_somebody_else_are_not_touched(tmp_path, class_set, name):
    (tmp_path / name).mkdir()
    (tmp_path / name / "mine").touch()
    with pytest.raises(UserError, match=f"{name}: is in the way and was not written by this command"):
        writer_for(tmp_path, class_set)
    assert (tmp_path / name / "mine").exists()


# --- kills, damage, and a full disk ----------------------------------------------------------------------------------


def test_a_shard_that_lost_its_end_is_drawn_again(tmp_path, class_set):
    writer = writer_for(tmp_path, class_set)
    write_all(writer)
    path = tmp_path / "work" / "shard-00001.npz"
    path.write_bytes(path.read_bytes()[:-50])
    assert [shard.index for shard in writer_for(tmp_path, class_set).missing()] == [1]


def test_a_shard_of_another_shape_is_drawn_again(tmp_path, class_set):
    writer = writer_for(tmp_path, class_set)
    write_all(writer)
    np.savez(tmp_path / "work" / "shard-00001.npz", np.zeros((4, 8, 8, 4), np.uint8))
    assert [shard.index for shard in writer.missing()] == [1]


def test_a_shard_with_a_flipped_bit_is_found_at_the_end_and_drawn_again(tmp_path):
    class_set = class_requests("b", 1, SamplingProtocol(image_size=64), count=10, num_classes=3)
    writer = writer_for(tmp_path, class_set)
    write_all(writer)
    path = tmp_path / "work" / "shard-00001.npz"
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(bytes(damaged))
    with pytest.raises(BadSamples, match=r"shard-00001\.npz: was damaged .*run the same command again"):
        writer.finish()
    assert not (tmp_path / "samples.json").exists()
    again = writer_for(tmp_path, class_set)
    assert [shard.index for shard in again.missing()] == [1]
    write_all(again)
    again.finish().validate()


SCRIPT = """
import os, signal, sys
from pathlib import Path
import numpy as np
from harness.contract import Progress, RequestSet, SampleSetWriter, UserError
import harness.contract.npz

folder, form, limit, die_at = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]
if limit:
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

class Deadly(Progress):
    def advance(self, count=1):
        super().advance(count)
        if die_at == "finish":
            os.kill(os.getpid(), signal.SIGKILL)

try:
    writer = SampleSetWriter(folder / "out", RequestSet.read(folder), {"name": "noise"}, form=form, shard_size=4)
    for shard in writer.missing():
        draw = [np.random.default_rng(r.seed).integers(0, 256, (8, 8, 3), np.uint8) for r in shard.requests]
        print("drew", shard.index, flush=True)
        if die_at == str(shard.index):
            os.kill(os.getpid(), signal.SIGKILL)
        writer.write(shard, np.stack(draw))
    writer.finish(Deadly(10, "images"))
except UserError as error:
    print(error)
    sys.exit(error.exit_code)
"""


def run(folder, form="npz", limit=0, die_at="never"):
    command = [sys.executable, "-c", SCRIPT, str(folder), form, str(limit), die_at]
    return subprocess.run(command, check=False, capture_output=True, text=True)


@pytest.mark.parametrize("form", ["npz", "png"])
def test_kills_anywhere_leave_the_same_samples_in_the_end(tmp_path, class_set, form):
    class_set.write(tmp_path)
    out = tmp_path / "out"
    for die_at, drawn in (("1", "drew 0\ndrew 1\n"), ("2", "drew 1\ndrew 2\n"), ("finish", "drew 2\n")):
        killed = run(tmp_path, form, die_at=die_at)
        assert (killed.returncode, killed.stdout) == (-signal.SIGKILL, drawn)
        assert not (out / "samples.json").exists()
        with pytest.raises(BadSamples, match="not finished"):
            SampleSet.open(out)
    last = run(tmp_path, form)
    assert (last.returncode, last.stdout) == (0, "")
    samples = SampleSet.open(out)
    samples.validate()
    np.testing.assert_array_equal(samples.images(range(10)), draw(class_set))
    assert not (out / "work").exists()


def test_what_a_kill_left_half_written_is_swept_up_by_the_next_run(tmp_path, class_set):
    class_set.write(tmp_path)
    run(tmp_path, die_at="finish")
    assert list((tmp_path / "out" / "work").glob(".samples.npz.*.partial"))
    writer_for_killed = SampleSetWriter(tmp_path / "out", class_set, {"name": "noise"})
    assert not list((tmp_path / "out" / "work").glob(".*"))
    assert writer_for_killed.missing() == []


def test_a_kill_between_the_pixels_and_the_manifest_leaves_nothing_trusted(tmp_path, class_set):
    writer = writer_for(tmp_path, class_set)
    write_all(writer)
    for name in ("samples.npz", "index.jsonl"):  # as if an earlier try had died after renaming them into place
        (tmp_path / name).write_bytes(b"half")
    (tmp_path / "images").mkdir()
    again = writer_for(tmp_path, class_set)
    again.finish().validate()
    assert not (tmp_path / "images").exists()


def test_a_full_disk_is_one_sentence_and_keeps_the_finished_shards(tmp_path, class_set):
    class_set.write(tmp_path)
    full = run(tmp_path, limit=1500)  # a shard of four images fits, ten images do not
    assert full.returncode == EnvironmentFailure.exit_code
    assert "Traceback" not in full.stderr
    sentence = full.stdout.splitlines()[-1]
    assert "the disk or quota is full" in sentence
    assert "finished work is kept" in sentence
    assert {path.name for path in (tmp_path / "out" / "work").iterdir()} == {
        "work.json", "shard-00000.npz", "shard-00001.npz", "shard-00002.npz"
    }  # fmt: skip
    assert run(tmp_path).returncode == 0


def test_too_little_space_is_noticed_before_the_copying_begins(tmp_path, monkeypatch, class_set):
    writer = writer_for(tmp_path, class_set)
    write_all(writer)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=100))
    with pytest.raises(EnvironmentFailure, match=r"needs 0 MB and the disk has 0 MB; finished work is kept"):
        writer.finish()
    monkeypatch.undo()
    writer.finish().validate()


def test_the_generator_is_recorded_as_it_was_given(tmp_path, class_set):
    writer = writer_for(tmp_path, class_set)
    write_all(writer)
    writer.finish()
    manifest = json.loads(Path(tmp_path / "samples.json").read_text())
    assert manifest["generator"] == {"name": "noise", "size": [1, 2]}
    assert manifest["request_digest"] == class_set.digest


def test_a_generator_that_json_cannot_say_is_refused(tmp_path, class_set):
    for generator in ({"scale": float("nan")}, {"model": object()}):
        with pytest.raises(UserError, match="the identity of the generator: cannot be written as JSON"):
            SampleSetWriter(tmp_path, class_set, generator)
    assert SampleSetWriter(tmp_path, class_set, {"scale": np.float32(1.5)}).generator == {"scale": 1.5}
