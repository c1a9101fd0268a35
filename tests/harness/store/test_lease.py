"""One holder at a time; a dead one is succeeded, a living one is waited for."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from harness.contract.errors import EnvironmentFailure, UserError
from harness.store import lease


def dead_process() -> int:
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    child.wait()
    return child.pid


def write_holder(folder: Path, **changes: object) -> Path:
    """A lease of somebody else's."""
    with lease.held(folder) as mine:
        holder = dataclasses.asdict(mine.holder)
    path = folder / "1.json"
    path.write_text(json.dumps({**holder, "token": "other", **changes}))
    return path


def test_a_lease_is_free_when_the_work_is_done(tmp_path):
    folder = tmp_path / "leases" / "x"
    assert lease.current_holder(folder) is None
    with lease.held(folder):
        assert lease.current_holder(folder)
    assert lease.current_holder(folder) is None


def test_a_process_that_looked_before_others_came_and_went_does_not_get_in_beside_the_holder(tmp_path, monkeypatch):
    folder = tmp_path / "x"
    with lease.held(folder):
        pass
    looked: list[bool] = []
    reads = lease._read
    with contextlib.ExitStack() as others:

        def look(path: Path) -> lease.Holder | None:
            holder = reads(path)
            if not looked:
                looked.append(True)
                with lease.held(folder):
                    pass
                others.enter_context(lease.held(folder))
            return holder

        monkeypatch.setattr(lease, "_read", look)
        with pytest.raises(UserError, match="stopped waiting"), lease.held(folder, give_up=lambda: True):
            pass


def test_a_lease_is_given_back_when_the_work_fails(tmp_path):
    folder = tmp_path / "x"
    with pytest.raises(RuntimeError), lease.held(folder):
        raise RuntimeError
    assert lease.current_holder(folder) is None
    with lease.held(folder) as second:
        assert second.path.name == "2.json"


def test_the_lease_of_a_dead_process_is_taken_over_at_once(tmp_path):
    write_holder(tmp_path / "x", pid=dead_process())
    started = time.monotonic()
    with lease.held(tmp_path / "x") as mine:
        assert mine.path.name == "2.json"
    assert time.monotonic() - started < 5


def test_a_process_id_that_was_given_to_another_process_does_not_look_alive(tmp_path):
    write_holder(tmp_path / "x", pid=os.getpid(), started="1")
    with lease.held(tmp_path / "x") as mine:
        assert mine.path.name == "2.json"


def test_a_living_holder_is_waited_for(tmp_path):
    write_holder(tmp_path / "x")
    waited: list[lease.Holder] = []
    with (
        pytest.raises(UserError, match="stopped waiting"),
        lease.held(tmp_path / "x", on_wait=waited.append, give_up=lambda: bool(waited)),
    ):
        pass
    assert waited[0].pid == os.getpid()


def test_a_holder_elsewhere_lives_as_long_as_its_file_is_touched(tmp_path):
    path = write_holder(tmp_path / "x", host="elsewhere", boot="other")
    assert lease.current_holder(tmp_path / "x")
    old = time.time() - lease.SILENT_S - 5
    os.utime(path, (old, old))
    assert lease.current_holder(tmp_path / "x") is None
    with lease.held(tmp_path / "x"):
        pass


def test_a_file_that_is_no_lease_holds_nobody_up(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "1.json").write_text("{}")
    with lease.held(tmp_path / "x") as mine:
        assert mine.path.name == "2.json"


def test_a_holder_that_was_succeeded_finds_out(tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "HEARTBEAT_S", 0.05)
    with lease.held(tmp_path / "x") as mine:
        (tmp_path / "x" / "2.json").write_text("{}")
        assert mine.lost.wait(5)
        with pytest.raises(EnvironmentFailure, match="took this step over"):
            mine.check()


def test_threads_of_one_process_take_turns(tmp_path):
    inside: list[int] = []
    most: list[int] = []

    def work(number: int) -> None:
        with lease.held(tmp_path / "x"):
            inside.append(number)
            most.append(len(inside))
            time.sleep(0.02)
            inside.remove(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1, 1, 1, 1]


def _count(folder: Path, counter: Path) -> None:
    for _ in range(20):
        with lease.held(folder):
            counter.write_text(str(int(counter.read_text()) + 1))


def test_processes_never_hold_a_lease_together(tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "_POLL_S", 0.001)  # the more often they look, the more often they meet
    counter = tmp_path / "counter"
    counter.write_text("0")
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_count, args=(tmp_path / "x", counter)) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert counter.read_text() == "160"
