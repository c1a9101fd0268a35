from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.contract.errors import EnvironmentFailure
from harness.runtimes.process import run_process
from harness.runtimes.watchdog import OWNER_VARIABLE, WORK_VARIABLE, end_leftovers


def run(code: str, tmp_path, **options):
    lines: list[str] = []
    fields = {"env": dict(os.environ), "cwd": tmp_path, "on_line": lines.append, "stopped": lambda: False}
    return run_process([sys.executable, "-u", "-c", code], **{**fields, **options}), lines


def test_lines_of_both_streams_arrive_and_a_carriage_return_ends_one(tmp_path):
    outcome, lines = run("import sys; print('a'); sys.stderr.write('10%\\r20%\\r'); print('b', end='')", tmp_path)
    assert lines == ["a", "10%", "20%", "b"] and outcome.exit_code == 0 and outcome.reason == ""


def test_bytes_that_are_no_text_do_no_harm(tmp_path):
    _, lines = run("import sys; sys.stdout.buffer.write(b'\\xff\\n')", tmp_path)
    assert lines == ["�"]


def test_the_exit_code_and_a_signal_are_told(tmp_path):
    assert run("raise SystemExit(5)", tmp_path)[0].exit_code == 5
    assert run("import os; os.kill(os.getpid(), 9)", tmp_path)[0].exit_code == -9


def test_a_program_that_is_not_there_is_an_environment_failure(tmp_path):
    with pytest.raises(EnvironmentFailure, match="no-such-program"):
        run_process(["no-such-program"], env={}, cwd=tmp_path, on_line=print, stopped=lambda: False)


def test_a_process_that_is_asked_to_stop_can_save(tmp_path):
    code = (
        "import signal, sys, time; signal.signal(15, lambda *a: (print('saved'), sys.exit(75)));"
        "print('ready'); time.sleep(60)"
    )
    lines: list[str] = []
    outcome, _ = run(code, tmp_path, on_line=lines.append, stopped=lambda: "ready" in lines)
    assert lines == ["ready", "saved"] and outcome.reason == "cancelled" and outcome.exit_code == 75


def test_a_process_that_takes_too_long_is_ended(tmp_path):
    outcome, _ = run("import time; time.sleep(60)", tmp_path, timeout_s=0.3)
    assert outcome.reason == "timeout" and outcome.seconds < 20


def test_what_a_command_leaves_running_is_ended_with_it(tmp_path):
    code = (
        "import subprocess, sys; child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']);"
        "print(child.pid)"
    )
    started = time.monotonic()
    _, lines = run(code, tmp_path)
    assert time.monotonic() - started < 10
    time.sleep(0.1)
    assert not _is_running(int(lines[0]))


def _is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_leftovers_are_known_by_their_work_folder(tmp_path):
    nap = [sys.executable, "-c", "import time; time.sleep(60)"]
    mine = subprocess.Popen(nap, env={**os.environ, WORK_VARIABLE: str(tmp_path / "a")})
    other = subprocess.Popen(nap, env={**os.environ, WORK_VARIABLE: str(tmp_path / "ab")})
    time.sleep(0.2)
    assert end_leftovers(tmp_path / "a") == 1
    assert mine.wait(5) == -9 and other.poll() is None
    other.kill()
    other.wait()


def test_leftovers_of_another_harness_in_the_same_folder_are_left_alone(tmp_path):
    nap = [sys.executable, "-c", "import time; time.sleep(60)"]
    marks = {**os.environ, WORK_VARIABLE: str(tmp_path)}
    old, new = (subprocess.Popen(nap, env={**marks, OWNER_VARIABLE: name}) for name in ("old", "new"))
    time.sleep(0.2)
    assert end_leftovers(tmp_path, "old") == 1
    assert old.wait(5) == -9 and new.poll() is None
    new.kill()
    new.wait()
