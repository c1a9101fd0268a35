"""Containers: the hardening as text, and the real thing on a container engine."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from contextlib import nullcontext
from pathlib import Path

import pytest

from harness.catalog.project import find_project
from harness.contract.errors import EnvironmentFailure, UserError
from harness.planning.steps import Environment, FileInput, Plan, Resources, Step
from harness.running.execute import run_plan
from harness.running.failures import exit_code
from harness.runtimes import Places, RuntimeOptions, watchdog
from harness.runtimes.docker import WORK_LABEL, DockerRuntime, _refuse_unreadable, docker_run_line

DOCKERFILE = """
ARG BASE_IMAGE=python:3.11-slim
FROM ${BASE_IMAGE}
RUN --mount=type=cache,target=/root/.cache python3 -m venv /opt/venv && /opt/venv/bin/pip install numpy pillow
ENV PATH=/opt/venv/bin:$PATH PYTHONPATH=/app
COPY harness/__init__.py /app/harness/__init__.py
COPY harness/contract /app/harness/contract
COPY harness/scoring /app/harness/scoring
COPY harness/metrics /app/harness/metrics
COPY benchmarks/toy /app/benchmarks/toy
"""
TOY = Environment(name="toy", image="toy", keyed=True)


needs_engine = pytest.mark.engine
"""Deselected by `make test`; `.ci/run` starts an engine and runs these. The base image: `BASE_IMAGE`."""


@pytest.fixture
def runtime(toy) -> DockerRuntime:
    (toy.root / "docker" / "toy").mkdir(parents=True)
    (toy.root / "docker" / "toy" / "Dockerfile").write_text(DOCKERFILE)
    return DockerRuntime(toy.project, toy.home, RuntimeOptions())


def step(*argv: str, **fields) -> Step:
    return Step(
        name="s", kind="x", environment=TOY, argv=argv or ("{python}", "{code}/x.py", "{in}/a", "{out}"), **fields
    )


# --- as text: no engine ----------------------------------------------------------------------------------------------


def test_a_step_becomes_a_hardened_docker_run(runtime, toy):
    (toy.root / "a").touch()
    places = Places(inputs={"a": toy.root / "a"}, work=toy.root / "work")
    line = runtime.command(step(resources=Resources(memory_gb=1.5)), places)
    text = " ".join(line)
    assert line[:2] == ["docker", "run"]
    for part in (
        "--rm",
        "--network none",
        "--read-only",
        "--cap-drop=ALL",
        "--security-opt=no-new-privileges",
        "--memory 1536m --memory-swap 1536m",
        "--pids-limit 4096",
        "--tmpfs /scratch:",
        "--workdir /scratch",
        f"--mount type=bind,source={toy.root}/a,target=/in/a,readonly",
        f"--mount type=bind,source={toy.root}/work/output,target=/out ",
        "--env HOME=/scratch",
    ):
        assert part in text + " ", part
    assert line[-4:] == [line[-4], "/app/x.py", "/in/a", "/out"] and line[-4].startswith("harness/toy:")
    assert line[line.index("--entrypoint") + 1] == "python"


def test_containers_never_run_as_root(runtime, toy):
    line = runtime.command(step(), Places(inputs={}, work=toy.root))
    uid, gid = line[line.index("--user") + 1].split(":")
    assert int(uid) != 0 and int(gid) != 0
    assert os.geteuid() in (0, int(uid))


def test_a_network_is_given_only_to_a_step_that_declares_one(runtime, toy, monkeypatch):
    monkeypatch.setenv("HARNESS_JUDGE_URL", "http://judge")
    places = Places(inputs={}, work=toy.root)
    closed = runtime.command(step(), places)
    opened = runtime.command(step(resources=Resources(network=True)), places)
    assert closed[closed.index("--network") + 1] == "none" and not any("judge" in word for word in closed)
    assert opened[opened.index("--network") + 1] == "bridge" and "HARNESS_JUDGE_URL=http://judge" in opened


def test_a_step_with_a_service_has_no_network_but_its_settings_and_room_for_a_server(runtime, toy, monkeypatch):
    monkeypatch.setenv("HARNESS_JUDGE_FLAGS", "--enforce-eager")
    line = " ".join(runtime.command(step(has_service=True), Places(inputs={}, work=toy.root)))
    for part in (
        "--network none",
        "--env HARNESS_JUDGE_FLAGS=--enforce-eager",
        "--env TMPDIR=/scratch",
        "--shm-size 8g",
    ):
        assert part in line
    assert "exec" in line.partition("--tmpfs /scratch:")[2].partition(" ")[0].split(",")


def test_secrets_are_given_by_name_where_a_command_line_is_shown(runtime, toy, monkeypatch):
    monkeypatch.setenv("HARNESS_JUDGE_API_KEY", "sk-very-secret")
    places, asking = Places(inputs={}, work=toy.root), step(resources=Resources(network=True))
    line = runtime.command(asking, places)
    assert line[line.index("HARNESS_JUDGE_API_KEY") - 1] == "--env" and not any("sk-very" in word for word in line)
    assert runtime.settings(asking, places)["environment"]["HARNESS_JUDGE_API_KEY"] == "sk-very-secret"


def test_gpus_are_asked_for_only_when_wanted_and_granted(runtime, toy):
    granted = Places(inputs={}, work=toy.root, gpus=("0", "2"))
    wants = step(resources=Resources(gpus=2))
    assert '"device=0,2"' in runtime.command(wants, granted)
    assert "--gpus" not in runtime.command(step(), granted)
    assert "--gpus" not in runtime.command(wants, Places(inputs={}, work=toy.root))


def test_no_credentials_of_the_shell_reach_a_container(runtime, toy, monkeypatch):
    monkeypatch.setenv("SECRET_TOKEN", "hush")
    assert not any("hush" in word for word in runtime.command(step(), Places(inputs={}, work=toy.root)))


def test_a_step_without_an_image_runs_on_this_machine(runtime, toy):
    host = Step(name="s", kind="x", argv=("{python}", "-V"))
    assert runtime.command(host, Places(inputs={}, work=toy.root))[0] == "env"


def test_a_ready_image_is_used_as_it_is_and_its_name_is_the_key(toy):
    ready = DockerRuntime(toy.project, toy.home, RuntimeOptions(images={"toy": "repo/toy@sha256:ab"}))
    other = DockerRuntime(toy.project, toy.home, RuntimeOptions(images={"toy": "repo/toy@sha256:cd"}))
    assert ready.command(step(), Places(inputs={}, work=toy.root))[-4] == "repo/toy@sha256:ab"
    assert ready.environment_digest(TOY) != other.environment_digest(TOY)


def test_the_command_line_says_what_the_sdk_is_told(runtime, toy):
    places = Places(inputs={}, work=toy.root)
    assert runtime.command(step(), places) == docker_run_line(runtime.settings(step(), places))


def test_an_engine_that_does_not_answer_is_an_environment_failure(runtime, monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    with pytest.raises(EnvironmentFailure, match="harness doctor"):
        runtime.prepare(TOY, print)
    (check, *_) = runtime.checks()
    assert not check.ok


# --- for real --------------------------------------------------------------------------------------------------------


def run(toy, runtime: DockerRuntime, one: Step):
    record, run_dir = run_plan(Plan(name="p", steps=(one,)), toy.setting(runtime=runtime))
    log = run_dir / record.steps[0].folder / "log.txt"
    return record, (log.read_text() if log.exists() else ""), run_dir


@needs_engine
def test_a_benchmark_gives_the_same_score_in_a_container_and_in_an_environment(toy, runtime, score_of):
    venv = toy.run()
    record, _ = run_plan(toy.plan(), toy.setting(runtime=runtime))
    assert record.status == "finished", [row.error for row in record.steps]
    assert [row.status for row in record.steps] == ["cached", "cached", "run"]
    assert score_of(toy.runs_dir, record) == score_of(toy.runs_dir, venv)
    environment = record.step("score-toy").environment
    assert environment["runtime"] == "docker" and environment["image_id"].startswith("sha256:")
    again, _ = run_plan(toy.plan(), toy.setting(runtime=runtime))
    assert [row.status for row in again.steps] == ["cached"] * 3


@needs_engine
def test_a_benchmark_outside_of_the_checkout_is_scored_in_the_common_image(toy, score_of):
    """Only its folder is its own: the Dockerfile is the shipped one."""
    lock = Path(__file__).parents[3] / "benchmarks/demo_t2i/requirements.lock"
    shutil.copyfile(lock, toy.root / "benchmarks/toy/numpy-pillow.lock")
    toy.edit("benchmarks/toy/benchmark.yaml", "image: toy", "lock: numpy-pillow.lock")
    runtime = DockerRuntime(find_project(), toy.home, RuntimeOptions())
    record, _ = run_plan(toy.plan(), toy.setting(runtime=runtime))
    assert record.status == "finished", [row.error for row in record.steps]
    assert score_of(toy.runs_dir, record) == score_of(toy.runs_dir, toy.run())
    assert record.step("score-toy").environment["image"].startswith("harness/toy:")


@needs_engine
def test_a_container_can_do_what_it_needs_and_nothing_else(toy, runtime):
    (toy.root / "data").mkdir()
    (toy.root / "data" / "a.txt").write_text("x")
    code = """
import os, socket
def may(name, act):
    try: act(); print(name, "yes")
    except OSError as error: print(name, "no")
may("read input", lambda: open("/in/data/a.txt").read())
may("write input", lambda: open("/in/data/b.txt", "w"))
may("write output", lambda: open("/out/result.txt", "w").write("done"))
may("write scratch", lambda: open("/scratch/x", "w"))
may("write root", lambda: open("/app/x", "w"))
may("reach network", lambda: socket.create_connection(("1.1.1.1", 53), 2))
print("uid root", "yes" if os.getuid() == 0 else "no")
print("cap", [line.split()[1] for line in open("/proc/self/status") if line.startswith(("CapEff", "NoNewPrivs"))])
"""
    data = {"data": FileInput(toy.root / "data")}
    record, log, run_dir = run(toy, runtime, step("{python}", "-c", code, inputs=data, produces=("result.txt",)))
    assert exit_code(record) == 0, record.steps[0].error
    answers = dict(line.rsplit(" ", 1) for line in log.splitlines() if line.endswith((" yes", " no")))
    assert answers == {
        "read input": "yes",
        "write input": "no",
        "write output": "yes",
        "write scratch": "yes",
        "write root": "no",
        "reach network": "no",
        "uid root": "no",
    }
    assert "cap ['0000000000000000', '1']" in log
    assert (run_dir / record.steps[0].folder / "output" / "result.txt").read_text() == "done"


@needs_engine
def test_too_much_memory_is_told_from_other_failures(toy, runtime):
    hungry = step(
        "{python}", "-c", "x = bytearray(1 << 30); print(len(x))", resources=Resources(memory_gb=0.1, advice="Do this.")
    )
    record, _, _ = run(toy, runtime, hungry)
    assert exit_code(record) == 6 and "more than its 0.1 GB of memory" in record.steps[0].error
    assert "Do this. Finished work is kept" in record.steps[0].error


@needs_engine
def test_a_container_that_takes_too_long_is_ended_and_removed(toy, runtime):
    slow = step("{python}", "-c", "import time; time.sleep(100)", resources=Resources(timeout_s=1))
    record, _, _ = run(toy, runtime, slow)
    assert exit_code(record) == 6 and "took longer" in record.steps[0].error
    assert containers_of(toy, runtime) == []


def harness_with_a_container(toy, runtime) -> tuple[subprocess.Popen[str], list[str]]:
    """A harness whose scorer is running, and the words it was called with."""
    runtime.prepare(TOY, print)
    toy.edit(
        "benchmarks/toy/scorer.py",
        "    progress = ",
        "    import time; time.sleep(30 if job.options['refuse'] else 0)\n    progress = ",
    )
    words = [*toy.run_words(), "--runtime", "docker", "--set", "toy.refuse=1"]
    harness = toy.harness(*words)
    deadline = time.monotonic() + 60
    while not containers_of(toy, runtime):
        assert time.monotonic() < deadline and harness.poll() is None
        time.sleep(0.1)
    return harness, words


def kill(harness: subprocess.Popen[str], *, and_its_watchdog: bool) -> None:
    if and_its_watchdog:
        subprocess.run(["pkill", "-KILL", "-P", str(harness.pid), "-f", watchdog.__file__], check=True)
    harness.send_signal(signal.SIGKILL)
    harness.communicate()


@needs_engine
def test_a_container_ends_with_the_harness_that_is_killed(toy, runtime):
    harness, _ = harness_with_a_container(toy, runtime)
    kill(harness, and_its_watchdog=False)
    deadline = time.monotonic() + 60
    while containers_of(toy, runtime):
        assert time.monotonic() < deadline
        time.sleep(0.1)


@needs_engine
def test_a_container_that_a_killed_harness_left_is_removed_by_the_next(toy, runtime):
    harness, words = harness_with_a_container(toy, runtime)
    kill(harness, and_its_watchdog=True)
    (left,) = containers_of(toy, runtime)
    deadline = time.monotonic() + 60
    again = toy.harness(*words)
    while left in containers_of(toy, runtime):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    again.send_signal(signal.SIGTERM)
    output, _ = again.communicate(timeout=60)
    assert again.returncode == 130, output
    assert containers_of(toy, runtime) == []


@needs_engine
def test_an_image_that_does_not_build_shows_the_end_of_its_log(toy, runtime):
    toy.edit("docker/toy/Dockerfile", "pip install numpy pillow", "pip install this-is-not-a-package==0")
    record, _, _ = run(toy, runtime, step("{python}", "-V"))
    assert exit_code(record) == 6
    assert "this-is-not-a-package" in record.steps[0].error and "build-image-toy.log" in record.steps[0].error


def containers_of(toy, runtime: DockerRuntime) -> list[str]:
    found = runtime.client.containers.list(all=True, filters={"label": WORK_LABEL})
    return [one.id for one in found if Path(one.labels[WORK_LABEL]).is_relative_to(toy.root)]


def test_an_unknown_runtime_is_named(toy):
    from harness.runtimes import make_runtime

    with pytest.raises(UserError, match="did you mean docker"):
        make_runtime("rocket", toy.project, toy.home)


def test_root_is_told_of_files_that_the_containers_user_could_not_read(tmp_path: Path, monkeypatch) -> None:
    """safetensors writes weights for their owner alone; inside the container they seemed to be missing."""
    weights = tmp_path / "encoder" / "model.safetensors"
    weights.parent.mkdir()
    weights.touch(mode=0o600)
    places = Places(inputs={"text-encoder": weights.parent}, work=tmp_path / "work")
    for user, refused in ((0, True), (1000, False)):
        monkeypatch.setattr(os, "geteuid", lambda user=user: user)
        with (
            pytest.raises(UserError, match=r"safetensors: can be read .* chmod -R a\+rX") if refused else nullcontext()
        ):
            _refuse_unreadable(places)
