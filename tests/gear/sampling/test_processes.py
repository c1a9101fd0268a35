"""The same images from any number of processes, killed or not: the real command, in separate processes."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import pytest

from harness.contract.samples import SampleSet
from tests.gear.sampling.conftest import run, sample_command, toy_requests


@pytest.fixture(scope="module")
def job(model_file: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """Model, request set, and the digest of the set that one uninterrupted process gives."""
    folder = tmp_path_factory.mktemp("job")
    toy_requests().write(folder / "requests")
    run(sample_command(model_file, folder / "requests", folder / "out"))
    return model_file, folder / "requests", SampleSet.open(folder / "out").digest


@pytest.mark.slow
@pytest.mark.parametrize("options", [("--processes", 2), ("--processes", 4, "--batch-size", 1), ("--batch-size", 7)])
def test_any_number_of_processes_draws_the_same_images(job, tmp_path, options):
    model, requests, digest = job
    run(sample_command(model, requests, tmp_path / "out", *options))
    samples = SampleSet.open(tmp_path / "out")
    samples.validate()
    assert samples.digest == digest
    assert not (tmp_path / "out/work").exists()


@pytest.mark.slow
def test_torchrun_draws_the_same_images(job, tmp_path):
    model, requests, digest = job
    command = sample_command(model, requests, tmp_path / "out")
    launcher = [command[0], "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *command[1:]]
    run(launcher)
    assert SampleSet.open(tmp_path / "out").digest == digest


@pytest.mark.slow
def test_a_process_that_dies_has_its_share_drawn_by_the_others(job, tmp_path):
    model, requests, digest = job
    out = tmp_path / "out"
    command = sample_command(model, requests, out, "--processes", 2)
    parent = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    child = _wait_for(lambda: _children(parent.pid)[1:], parent)[0]
    _wait_for(lambda: list(out.glob("work/*.claim")), parent)
    subprocess.run(["kill", "-9", str(child)], check=True)
    assert parent.wait(timeout=120) == 0
    assert SampleSet.open(out).digest == digest


@pytest.mark.slow
def test_a_run_killed_twice_resumes_with_other_numbers_of_processes(job, tmp_path):
    model, requests, digest = job
    out = tmp_path / "out"
    for processes, shards in ((1, 1), (2, 3)):
        command = sample_command(model, requests, out, "--processes", processes)
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _wait_for(lambda shards=shards: len(list(out.glob("work/shard-*.npz"))) >= shards, process)
        children = _children(process.pid)
        process.send_signal(signal.SIGKILL)
        process.wait()
        _wait_for(lambda children=children: not any(Path(f"/proc/{child}").exists() for child in children), None)
        assert not (out / "samples.json").exists()
    run(sample_command(model, requests, out, "--processes", 4))
    assert SampleSet.open(out).digest == digest


def test_a_model_that_does_not_fit_is_refused_in_one_sentence_with_its_status_by_all_processes(model_file, tmp_path):
    from harness.contract.requests import SamplingProtocol, class_requests

    class_requests("toy", 1, SamplingProtocol(image_size=8), count=9, num_classes=99).write(tmp_path / "requests")
    command = sample_command(model_file, tmp_path / "requests", tmp_path / "out", "--processes", 2)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "but the AR model has 3" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_full_disk_gives_one_sentence_and_status_6_and_finished_shards_are_kept(model_file, tmp_path):
    toy_requests(400).write(tmp_path / "requests")
    out = tmp_path / "out"
    command = sample_command(model_file, tmp_path / "requests", out)
    # No file may grow beyond 40 kB: the shards (18 kB) fit, the finished set (77 kB) does not.
    limited = ["bash", "-c", 'ulimit -f 40; exec "$@"', "bash", *command]
    done = subprocess.run(limited, capture_output=True, text=True, check=False)
    assert done.returncode == 6, done.stderr
    assert "the disk or quota is full" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(list(out.glob("work/shard-*.npz"))) == 5
    run(command)
    SampleSet.open(out).validate()


def _children(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in listed.read_text().split()] if listed.exists() else []


def _wait_for(condition, process):
    deadline = time.monotonic() + 120
    while not (found := condition()):
        assert process is None or process.poll() is None, "it ended too early"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found
