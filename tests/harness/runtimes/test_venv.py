"""Environments from lock files, by real uv; offline, from a wheel made here."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from pathlib import Path

import pytest

from harness.contract.errors import EnvironmentFailure
from harness.planning.steps import Environment, Plan, Step
from harness.running.execute import run_plan
from harness.running.failures import exit_code
from harness.runtimes import Places
from harness.runtimes.venv import VenvRuntime


def write_wheel(folder: Path, answer: int) -> Path:
    """A wheel `tiny` with a module and a command."""
    files = {
        "tiny.py": f"ANSWER = {answer}\ndef main():\n    print('answer', ANSWER)\n",
        "tiny-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n",
        "tiny-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "tiny-1.0.dist-info/entry_points.txt": "[console_scripts]\ntiny = tiny:main\n",
    }
    rows = []
    for name, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        rows.append(f"{name},sha256={digest},{len(text)}")
    files["tiny-1.0.dist-info/RECORD"] = "\n".join([*rows, "tiny-1.0.dist-info/RECORD,,"]) + "\n"
    folder.mkdir(exist_ok=True)
    path = folder / "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return path


def write_lock(toy, answer: int, *, sha256: str | None = None) -> None:
    wheel = write_wheel(toy.root / f"wheels-{answer}", answer)
    sha256 = sha256 or hashlib.sha256(wheel.read_bytes()).hexdigest()
    (toy.root / "benchmarks/toy/requirements.lock").write_text(f"tiny @ {wheel.as_uri()} --hash=sha256:{sha256}\n")


ENVIRONMENT = Environment(name="tiny", lock="benchmarks/toy/requirements.lock", code=("benchmarks/toy",), keyed=True)


def ask(*argv: str) -> Plan:
    return Plan(name="ask", steps=(Step(name="ask", kind="x", environment=ENVIRONMENT, argv=argv),))


def log_of(plan: Plan, toy) -> tuple[str, str]:
    record, run_dir = run_plan(plan, toy.setting())
    assert exit_code(record) == 0, record.steps[0].error
    return (run_dir / record.steps[0].folder / "log.txt").read_text(), record.steps[0].status


@pytest.fixture
def locked(toy, monkeypatch):
    monkeypatch.setenv("UV_CACHE_DIR", str(toy.root / "uv-cache"))
    write_lock(toy, 42)
    return toy


def test_an_environment_is_built_from_its_lock_once_and_keyed_by_it(locked):
    toy = locked
    plan = ask("{python}", "-c", "import tiny, sys; print('answer', tiny.ANSWER, sys.prefix)")
    log, status = log_of(plan, toy)
    assert "answer 42" in log and str(toy.home / "envs" / "tiny-") in log and status == "run"
    assert log_of(plan, toy)[1] == "cached"
    write_lock(toy, 43)
    log, status = log_of(plan, toy)
    assert "answer 43" in log and status == "run"
    assert len(list((toy.home / "envs").iterdir())) == 2


def test_commands_of_an_environment_work_where_it_was_renamed_to(locked):
    toy = locked
    runtime = VenvRuntime(toy.project, toy.home)
    runtime.prepare(ENVIRONMENT, print)
    log, _ = log_of(
        ask("{python}", "-c", "import subprocess, sys; print(subprocess.check_output([sys.prefix + '/bin/tiny']))"), toy
    )
    assert "answer 42" in log


def test_a_step_sees_its_lock_and_its_code_and_nothing_of_the_harness(locked):
    code = (
        "import importlib.util as u;"
        "names = ('tiny', 'benchmarks.toy.brightness', 'rich', 'harness.planning.steps');"
        "print('sees', [name for name in names if seen(name)])"
    )
    seen = "def seen(name):\n    try: __import__(name)\n    except ImportError: return False\n    return True\n"
    log, _ = log_of(ask("{python}", "-c", f"{seen}{code}"), locked)
    assert "sees ['tiny', 'benchmarks.toy.brightness']" in log


def test_a_wheel_that_is_not_the_locked_one_fails_the_build_and_leaves_no_environment(locked):
    toy = locked
    write_lock(toy, 44, sha256="0" * 64)
    with pytest.raises(EnvironmentFailure, match="Whole log") as caught:
        VenvRuntime(toy.project, toy.home).prepare(ENVIRONMENT, print)
    assert "requirements.lock" in str(caught.value) and caught.value.exit_code == 6
    assert not [path for path in (toy.home / "envs").iterdir() if not path.name.startswith(".")]


def test_a_lock_without_hashes_is_refused(locked):
    toy = locked
    wheel = write_wheel(toy.root / "wheels", 1)
    (toy.root / "benchmarks/toy/requirements.lock").write_text(f"tiny @ {wheel.as_uri()}\n")
    with pytest.raises(EnvironmentFailure, match="hash"):
        VenvRuntime(toy.project, toy.home).prepare(ENVIRONMENT, print)


def test_an_environment_that_was_built_half_is_built_again(locked):
    toy = locked
    runtime = VenvRuntime(toy.project, toy.home)
    folder = runtime._folder(ENVIRONMENT)
    half = folder.with_name(f".{folder.name}.00000000-1-00000000.partial")
    half.mkdir(parents=True)
    assert not runtime.is_ready(ENVIRONMENT)
    runtime.prepare(ENVIRONMENT, print)
    assert runtime.is_ready(ENVIRONMENT)


def test_the_digest_of_an_environment_follows_lock_python_and_code(locked):
    toy = locked
    runtime = VenvRuntime(toy.project, toy.home)
    before = runtime.environment_digest(ENVIRONMENT)
    assert runtime.environment_digest(ENVIRONMENT) == before
    toy.edit("benchmarks/toy/brightness.py", "mean", "max")
    after_code = runtime.environment_digest(ENVIRONMENT)
    write_lock(toy, 45)
    assert len({before, after_code, runtime.environment_digest(ENVIRONMENT)}) == 3


def test_the_command_line_is_a_clean_environment_and_host_paths(locked, monkeypatch):
    toy = locked
    monkeypatch.setenv("SECRET_TOKEN", "hush")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    step = Step(name="s", kind="x", environment=ENVIRONMENT, argv=("{python}", "{code}/a.py", "{in}/x", "{out}", "{y}"))
    line = VenvRuntime(toy.project, toy.home).command(step, Places(inputs={}, work=Path("/w"), gpus=("1",)))
    assert line[:4] == ["env", "-i", "--chdir", "/w/scratch"]
    assert line[-5].startswith(str(toy.home / "envs")) and line[-4].startswith(str(toy.home / "code"))
    assert line[-3:] == ["/w/in/x", "/w/output", "{y}"]
    assert "OMP_NUM_THREADS=3" in line and "HOME=/w/scratch" in line and not any("hush" in word for word in line)
    assert not any(word.startswith("CUDA_VISIBLE_DEVICES") for word in line)  # it did not ask for a GPU


def test_a_folder_given_as_an_asset_is_laid_out_without_links_loops_and_litter(toy):
    source = toy.root / "asset"
    (source / "part").mkdir(parents=True)
    for name in ("a.parquet", "part/b.parquet", "._a.parquet"):
        (source / name).write_text(name)
    (source / "latest").symlink_to(".")
    (source / "c.parquet").symlink_to("part/b.parquet")
    places = Places(inputs={"assets/coco": source, "samples": source}, work=toy.root / "work")
    VenvRuntime(toy.project, toy.home)._lay_out_inputs(places)
    laid_out = toy.root / "work" / "in" / "assets" / "coco"
    names = sorted(path.relative_to(laid_out).as_posix() for path in laid_out.rglob("*") if path.is_file())
    assert names == ["a.parquet", "c.parquet", "part/b.parquet"]
    assert not any(path.is_symlink() for path in laid_out.rglob("*"))
