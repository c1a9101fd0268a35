"""Folders that the user may not write to, and users without a home: it works, or one sentence says what to do."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from harness.contract.errors import UserError
from harness.running.execute import check_run_id

PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 24, 1, 2


def as_a_plain_user() -> None:
    """Permissions count for root, too: what is started now cannot override them."""
    for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
        ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, capability)


def call(toy, *words: object, cwd: Path | None = None, **variables: str | None) -> tuple[int, str]:
    """Exit status and output of the command, called by a user to whom permissions apply."""
    environment = {**os.environ, **variables}
    given = {name: value for name, value in environment.items() if value is not None}
    options = {"env": given, "preexec_fn": as_a_plain_user, "cwd": cwd or toy.root}
    harness = toy.harness(*words, **options)
    output, _ = harness.communicate(timeout=120)
    assert "Traceback" not in output, output
    return harness.returncode, output


@pytest.fixture
def score(toy) -> list[object]:
    """The words that score a file."""
    np.savez(toy.root / "mine.npz", arr_0=np.full((5, 8, 8, 3), 7, np.uint8))
    return ["score", "toy", "--samples", toy.root / "mine.npz", "--asset", f"toy-reference={toy.reference}"]


@pytest.fixture
def closed(toy) -> Iterator[Path]:
    """A folder that can be read but not written."""
    folder = toy.root / "closed"
    folder.mkdir(mode=0o555)
    yield folder
    folder.chmod(0o755)


@pytest.mark.parametrize("inner", [".", "home", "a/b"])
def test_scoring_needs_no_home_that_can_be_written(toy, score, closed, inner):
    assert call(toy, *score, HARNESS_HOME=str(closed / inner))[0] == 0
    assert call(toy, *score, HARNESS_HOME=None, HOME=str(closed))[0] == 0
    assert list(closed.iterdir()) == []


def test_a_shared_home_that_is_complete_simply_works(toy, score):
    assert call(toy, "prepare", "toy")[0] == 0
    assert [path.name for path in (toy.home / "code").iterdir()] != []
    for path in [toy.home, *toy.home.rglob("*")]:
        path.chmod(path.stat().st_mode & ~0o222)
    before = sorted(toy.home.rglob("*"))
    status, output = call(toy, *score)
    assert status == 0, output
    status, output = call(toy, "doctor")
    assert "read-only: nothing can be added" in output, output
    assert sorted(toy.home.rglob("*")) == before
    for path in before:
        path.chmod(0o755)
    toy.home.chmod(0o755)


@pytest.mark.parametrize("runs", [None, "runs", "a/b/runs"])
def test_runs_that_cannot_be_written_are_one_sentence(toy, score, closed, runs):
    """In the current folder, or anywhere below a folder that is closed."""
    words = [] if runs is None else ["--runs", closed / runs]
    status, output = call(toy, *score, *words, cwd=closed)
    assert status == 2 and f"{closed}" in output and "cannot be written (Permission denied)" in output, output
    assert len(output.strip().splitlines()) == 1


@pytest.mark.parametrize(
    "words", [["new", "benchmark", "x", "--in", "sub/x"], ["export", "RUN", "--to", "csv", "--out", "x/y.csv"]]
)
def test_other_commands_say_it_too(toy, score, closed, words):
    assert call(toy, *score, "--name", "RUN")[0] == 0
    shutil.move(toy.runs_dir, toy.root / "there")
    words = [*words, *(["--runs", toy.root / "there"] if "RUN" in words else [])]
    status, output = call(toy, *words, cwd=closed)
    assert status == 2 and "Permission denied" in output, output


def test_a_home_that_may_not_be_looked_into_is_named(toy, score, closed):
    closed.chmod(0)
    status, output = call(toy, *score, HARNESS_HOME=None, HOME=str(closed))
    assert status == 2 and f"{closed}" in output and "export HARNESS_HOME" in output


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become a user without an entry")
def test_a_user_without_a_home_is_told_what_to_set():
    code = "import os, harness.cli.doctor, harness.cli; os.setuid(61234); harness.cli.main(['doctor'])"
    given = {name: value for name, value in os.environ.items() if name not in ("HARNESS_HOME", "HOME")}
    done = subprocess.run([sys.executable, "-c", code], env=given, cwd="/", capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "no home directory" in done.stderr and "HARNESS_HOME" in done.stderr, done.stderr


@pytest.mark.parametrize("name", ["n" * 300, "é" * 150, "a\nb", "a\x1b[2Jb", "a/b", "..", ".hidden", "a\udcff"])
def test_a_name_that_makes_no_folder_is_refused(name):
    with pytest.raises(UserError, match="--name ") as refused:
        check_run_id(name)
    assert "\x1b" not in str(refused.value) and len(str(refused.value)) < 500


def test_a_file_with_a_long_name_is_scored(toy, score):
    path = toy.root / f"{'x' * 250}.npz"
    (toy.root / "mine.npz").rename(path)
    assert call(toy, "score", "toy", "--samples", path, *score[4:])[0] == 0
