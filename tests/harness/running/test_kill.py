"""kill -9 at any moment loses at most one shard, and nothing half-written is ever trusted."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from harness.running.execute import run_plan
from harness.runtimes import watchdog
from harness.runtimes.venv import VenvRuntime
from harness.store.run_record import RunRecord, find_runs

NUM_SHARDS = 6


def wait_for(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def finished_shards(runs_dir: Path) -> int:
    return len(list(runs_dir.glob(".store/work/sample-*/output/work/*.npz")))


def the_run(runs_dir: Path) -> RunRecord:
    (record,) = find_runs(runs_dir)
    return record


def test_a_killed_run_goes_on_where_it_was(toy):
    words = toy.run_words("--nap", 0.3)
    harness = toy.harness(*words)
    wait_for(lambda: finished_shards(toy.runs_dir) >= 2)
    harness.send_signal(signal.SIGKILL)
    harness.communicate()
    drawn_before = len(toy.drawn())

    again = toy.harness(*words)
    output, _ = again.communicate(timeout=60)
    assert again.returncode == 0, output
    record = the_run(toy.runs_dir)
    assert record.step("sample-toy").status == "resumed"
    assert drawn_before < NUM_SHARDS
    # At most: the shard in the making, and the one the orphan had begun until it was ended.
    assert len(toy.drawn()) <= NUM_SHARDS + 2


FAMILY = """
import os, subprocess, sys, time
nap = [sys.executable, "-c", "import time; time.sleep(300)", "my-family"]
subprocess.Popen(nap)
subprocess.Popen(nap, start_new_session=True)  # as torchrun and others do
subprocess.Popen(nap, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
"""


def test_the_steps_of_a_harness_that_is_killed_end_with_it_and_all_that_they_started(toy):
    toy.edit("my_model.py", "writer = Sample", f"exec({FAMILY!r})\nwriter = Sample")
    harness = toy.harness(*toy.run_words("--nap", 60))
    wait_for(lambda: len(toy.drawn()) == 1)
    assert len(processes_of("my-family")) == 3
    harness.send_signal(signal.SIGKILL)
    harness.communicate()
    wait_for(lambda: processes_of(toy.generator) == [] and processes_of("my-family") == [])
    wait_for(lambda: processes_of(watchdog.__file__, of_parent=harness.pid) == [])


def test_a_watchdog_ends_with_its_harness(toy):
    harness = toy.harness(*toy.run_words("--nap", 0.3))
    wait_for(lambda: len(toy.drawn()) == 1)
    dogs = processes_of(watchdog.__file__, of_parent=harness.pid)
    harness.communicate(timeout=60)
    assert len(dogs) == 1 and harness.returncode == 0
    wait_for(lambda: not Path(f"/proc/{dogs[0]}").exists())


def test_the_work_of_an_orphan_is_ended_and_not_waited_for(toy):
    """Where the harness was killed together with its watchdog."""
    words = toy.run_words("--nap", 30)
    harness = toy.harness(*words)
    wait_for(lambda: len(toy.drawn()) == 1)
    for dog in processes_of(watchdog.__file__, of_parent=harness.pid):
        os.kill(dog, signal.SIGKILL)
    harness.send_signal(signal.SIGKILL)
    harness.communicate()
    (orphan,) = processes_of(toy.generator)
    quick = toy.harness(*words)
    wait_for(lambda: len(toy.drawn()) == 2)
    assert orphan not in processes_of(toy.generator)
    quick.send_signal(signal.SIGTERM)
    output, _ = quick.communicate(timeout=30)
    assert quick.returncode == 130, output
    assert "the same command continues" in output
    assert processes_of(toy.generator) == []


def processes_of(word: Path | str, of_parent: int | None = None) -> list[int]:
    """Living processes with an argument `word` (not the harness, which has it among others in one argument)."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            words = (folder / "cmdline").read_bytes().split(b"\0")
            if str(word).encode() in words and of_parent in (None, parent):
                found.append(int(folder.name))
    return found


def test_a_run_that_is_asked_to_stop_says_so_and_can_go_on(toy):
    words = toy.run_words("--nap", 0.4)
    harness = toy.harness(*words)
    wait_for(lambda: finished_shards(toy.runs_dir) >= 1)
    harness.send_signal(signal.SIGINT)
    harness.communicate(timeout=30)
    assert harness.returncode == 130
    record = the_run(toy.runs_dir)
    assert record.status == "interrupted" and record.step("sample-toy").status == "waiting"
    again = toy.harness(*toy.run_words("--nap", 0.4))
    again.communicate(timeout=60)
    assert again.returncode == 0 and the_run(toy.runs_dir).step("sample-toy").status == "resumed"


def test_signals_in_quick_succession_stop_a_run_all_the_same(toy):
    """As `timeout` and batch systems send them: a second one may come while the first is being handled."""
    harness = toy.harness(*toy.run_words("--nap", 0.4))
    wait_for(lambda: finished_shards(toy.runs_dir) >= 1)
    for _ in range(200):
        harness.send_signal(signal.SIGTERM)
    output, _ = harness.communicate(timeout=30)
    assert harness.returncode == 130, output


class Endless(VenvRuntime):
    """Its environments are never ready: a disk or a server does not answer."""

    def prepare(self, environment, say):
        threading.Event().wait()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_heard_while_the_harness_itself_waits_for_something(toy, number):
    setting = toy.setting(runtime=Endless(toy.project, toy.home))
    threading.Timer(0.5, os.kill, (os.getpid(), number)).start()
    record, _ = run_plan(toy.plan(), setting)
    assert record.status == "interrupted" and record.step("requests-toy").status == "waiting"


def test_two_harnesses_on_the_same_work_do_it_once(toy):
    words = toy.run_words("--nap", 0.2)
    both = [toy.harness(*words, "--name", name) for name in ("a", "b")]
    outputs = [harness.communicate(timeout=60)[0] for harness in both]
    assert [harness.returncode for harness in both] == [0, 0], outputs
    assert sorted(toy.drawn()) == list(range(NUM_SHARDS))
    assert any("waiting for process" in output for output in outputs)


@pytest.mark.slow
def test_kills_at_random_moments_never_change_the_result(toy):
    expected = toy.run("--nap", 0.05).step("score-toy").digest
    rng = random.Random(0)
    words = [*toy.run_words("--nap", 0.05), "--runs", "other"]
    for _ in range(25):
        harness = toy.harness(*words)
        time.sleep(rng.uniform(0.3, 3.0))
        harness.send_signal(signal.SIGKILL)
        harness.communicate()
        for record in find_runs(toy.root / "other"):  # readable at any moment
            record.scores(toy.root / "other" / record.run)
    last = toy.harness(*words)
    output, _ = last.communicate(timeout=60)
    assert last.returncode == 0, output
    assert the_run(toy.root / "other").step("sample-toy").digest == toy.run("--nap", 0.05).step("sample-toy").digest
    assert expected
