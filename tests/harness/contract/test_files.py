import errno
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.contract.errors import BadSamples, EnvironmentFailure, UserError
from harness.contract.files import (
    explain_disk_errors,
    finite,
    partial_path,
    read_json,
    read_json_lines,
    relative_path_problem,
    remove_stale_partials,
    safe_join,
    write_atomically,
    write_json,
    write_json_lines,
)


def test_a_file_appears_only_when_the_block_has_ended(tmp_path):
    path = tmp_path / "deep" / "file"
    with write_atomically(path) as handle:
        handle.write(b"all of it")
        assert not path.exists()
    assert path.read_bytes() == b"all of it"
    assert list(path.parent.iterdir()) == [path]


def test_an_exception_leaves_the_old_file_and_no_temporary_one(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(TypeError), write_atomically(path, "w") as handle:
        handle.write(["no text"])
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_umask_decides_who_may_read_the_file(tmp_path):
    write_json(tmp_path / "file", {})
    mask = os.umask(0)
    os.umask(mask)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o666 & ~mask


@pytest.mark.parametrize("name", ["é" * 127, "a" * 255])
def test_a_long_name_can_be_written(tmp_path, name):
    write_json(tmp_path / name, 1)
    assert read_json(tmp_path / name) == 1


KILLED = """
import os, signal, sys
from harness.contract.files import write_atomically
with write_atomically(sys.argv[1]) as handle:
    handle.write(b"half")
    handle.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_kill_leaves_a_temporary_file_that_the_next_run_removes(tmp_path):
    path = tmp_path / "file"
    killed = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert remove_stale_partials(tmp_path) == [left]
    assert list(tmp_path.iterdir()) == []


def test_the_temporary_file_of_a_living_writer_stays(tmp_path):
    mine = partial_path(tmp_path / "file")
    mine.touch()
    assert remove_stale_partials(tmp_path) == []
    assert mine.exists()


def test_the_temporary_file_of_another_machine_goes_after_an_hour(tmp_path):
    theirs = tmp_path / ".file.00000000-1-01234567.partial"
    theirs.touch()
    assert remove_stale_partials(tmp_path) == []
    long_ago = time.time() - 7200
    os.utime(theirs, (long_ago, long_ago))
    assert remove_stale_partials(tmp_path) == [theirs]


def test_files_that_only_look_temporary_stay(tmp_path):
    (tmp_path / ".mine.partial").touch()
    assert remove_stale_partials(tmp_path) == []


FULL = """
import resource, sys
from harness.contract import UserError, write_atomically
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    with write_atomically(sys.argv[1]) as handle:
        handle.write(bytes(1 << 20))
except UserError as error:
    print(error)
    sys.exit(error.exit_code)
"""


def test_a_full_quota_is_one_sentence_and_leaves_nothing(tmp_path):
    """A limit on file sizes is a full disk that any user can arrange."""
    path = tmp_path / "file"
    full = subprocess.run([sys.executable, "-c", FULL, str(path)], check=False, capture_output=True, text=True)
    assert (full.returncode, full.stderr) == (EnvironmentFailure.exit_code, "")
    assert full.stdout.startswith(f"{path}: the disk or quota is full")
    assert list(tmp_path.iterdir()) == []


def test_other_errors_of_the_disk_are_not_disguised(tmp_path):
    with pytest.raises(FileNotFoundError), explain_disk_errors(tmp_path):
        (tmp_path / "absent").read_bytes()


def test_a_file_where_a_folder_must_be_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file: cannot be written .*choose another folder"):
        write_json(tmp_path / "file" / "below", 1)


def test_a_folder_without_permission_is_named(tmp_path):
    with (
        pytest.raises(UserError, match=r"file: cannot be written \(Permission denied\)"),
        explain_disk_errors(tmp_path / "f"),
    ):
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "file"))


def test_json_comes_back_as_it_was(tmp_path):
    value = {"ü": [1, 2**64 - 1, None, 0.1], "path": tmp_path, "n": np.int64(3), "x": np.float32(0.5), "a": np.ones(2)}
    write_json(tmp_path / "f.json", value)
    assert read_json(tmp_path / "f.json") == {
        "ü": [1, 2**64 - 1, None, 0.1], "path": str(tmp_path), "n": 3, "x": 0.5, "a": [1.0, 1.0]
    }  # fmt: skip


def test_json_lines_come_back_with_their_numbers(tmp_path):
    assert write_json_lines(tmp_path / "f", ({"i": i} for i in range(3))) == 3
    assert list(read_json_lines(tmp_path / "f")) == [(1, {"i": 0}), (2, {"i": 1}), (3, {"i": 2})]


@pytest.mark.parametrize("value", [float("nan"), [float("inf")], {"a": object()}])
def test_what_json_cannot_say_is_not_written(tmp_path, value):
    with pytest.raises((ValueError, TypeError)):
        write_json(tmp_path / "f.json", value)
    assert list(tmp_path.iterdir()) == []


MALFORMED = {
    "empty": b"",
    "cut short": b'{"a": 1',
    "two values": b"{} {}",
    "NaN": b'{"a": NaN}',
    "infinity": b'{"a": -Infinity}',
    "a key twice": b'{"a": 1, "a": 2}',
    "not UTF-8": b'{"a": "\xff"}',
    "too deep": b"[" * 200_000,
    "a number without end": b"9" * 5000,
    "a comment": b'{"a": 1 /* one */}',
}


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED.keys())
def test_what_is_not_strict_json_is_refused_by_name(tmp_path, data):
    (tmp_path / "f.json").write_bytes(data)
    with pytest.raises(BadSamples, match=r"f\.json: is not valid JSON .*write the file again"):
        read_json(tmp_path / "f.json", error=BadSamples)
    (tmp_path / "f.jsonl").write_bytes(b'{"fine": 1}\n' + (data or b"\n"))
    with pytest.raises(BadSamples, match=r"f\.jsonl, line 2: is not valid JSON"):
        list(read_json_lines(tmp_path / "f.jsonl", error=BadSamples))


@pytest.mark.parametrize("read", [read_json, lambda path: list(read_json_lines(path))])
def test_a_missing_file_and_a_folder_are_refused_by_name(tmp_path, read):
    with pytest.raises(UserError, match=r"absent: cannot be read \(No such file"):
        read(tmp_path / "absent")
    with pytest.raises(UserError, match="cannot be read"):
        read(tmp_path)


def test_a_line_must_be_an_object(tmp_path):
    (tmp_path / "f").write_text("[1]\n")
    with pytest.raises(UserError, match="line 1: holds a list"):
        list(read_json_lines(tmp_path / "f"))


def test_finite_replaces_nan_at_every_depth():
    value = {"a": [float("nan"), 1.5, (np.float64("inf"), 2)], "b": np.array([1.0, np.nan]), "c": "nan"}
    assert finite(value) == {"a": [None, 1.5, [None, 2]], "b": [1.0, None], "c": "nan"}
    json.dumps(finite(value), allow_nan=False)


ESCAPES = [
    "",
    "/etc/passwd",
    "..",
    "../x",
    "a/../x",
    "a//b",
    "./a",
    "a/",
    "a\\b",
    "C:x",
    "c:/x",
    "a\0b",
    "a\nb",
    "\ud800",
]


@pytest.mark.parametrize("relative", [*ESCAPES, "a" * 256])
def test_a_path_that_may_leave_its_folder_is_refused(tmp_path, relative):
    with pytest.raises(UserError, match=r"the path .* (is|has) "):
        safe_join(tmp_path, relative)


@pytest.mark.parametrize("relative", ["a.png", "a/b/c.png", "..a", "a..", "ü/ö .png", "-rf"])
def test_a_plain_relative_path_is_joined(tmp_path, relative):
    assert safe_join(tmp_path, relative) == tmp_path / relative


def test_a_symbolic_link_out_of_the_folder_is_refused(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "in" / "link").symlink_to(tmp_path / "out")
    with pytest.raises(UserError, match="symbolic link leads out"):
        safe_join(tmp_path / "in", "link/file")


def test_a_symbolic_link_within_the_folder_is_fine(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "a")
    assert safe_join(tmp_path, "link/file") == tmp_path / "link" / "file"


@given(st.text("ab./\\:\0é", max_size=12))
def test_no_accepted_path_leaves_its_folder(relative):
    if relative_path_problem(relative) is None:
        assert os.path.normpath(os.path.join("/root", relative)) == "/root/" + relative  # noqa: PTH118 - a pure check
