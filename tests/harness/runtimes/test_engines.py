"""Containers, for real: on each engine that is here."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from harness.catalog.project import find_project
from harness.planning.steps import FileInput, Plan, Resources, Step
from harness.running.execute import run_plan
from harness.running.failures import exit_code
from harness.runtimes import make_runtime, watchdog
from harness.runtimes.containers import ContainerRuntime
from harness.runtimes.docker import DockerRuntime
from harness.runtimes.watchdog import WORK_LABEL
from tests.harness.runtimes.test_docker import DOCKERFILE, TOY, step

pytestmark = pytest.mark.engine
"""Deselected by `make test`; `.ci/run` starts an engine and runs these. The base image: `BASE_IMAGE`."""


@pytest.fixture(params=["docker", "podman"])
def runtime(toy, request) -> ContainerRuntime:
    if request.param == "podman":
        needs_podman()
    (toy.root / "docker" / "toy").mkdir(parents=True)
    (toy.root / "docker" / "toy" / "Dockerfile").write_text(DOCKERFILE)
    made = make_runtime(request.param, toy.project, toy.home)
    assert isinstance(made, ContainerRuntime)
    return made


def needs_podman() -> None:
    if shutil.which("podman") is None:
        pytest.skip("no podman on PATH")
    base = os.environ.get("BASE_IMAGE")
    if base and subprocess.run(["podman", "image", "exists", base], check=False).returncode:
        pytest.skip(f"Podman does not have the base image: docker save {base} | podman load")


def run(toy, runtime: ContainerRuntime, one: Step):
    record, run_dir = run_plan(Plan(name="p", steps=(one,)), toy.setting(runtime=runtime))
    log = run_dir / record.steps[0].folder / "log.txt"
    return record, (log.read_text() if log.exists() else ""), run_dir


def test_a_benchmark_gives_the_same_score_in_a_container_and_in_an_environment(toy, runtime, score_of):
    venv = toy.run()
    record, _ = run_plan(toy.plan(), toy.setting(runtime=runtime))
    assert record.status == "finished", [row.error for row in record.steps]
    assert [row.status for row in record.steps] == ["cached", "cached", "run"]
    assert score_of(toy.runs_dir, record) == score_of(toy.runs_dir, venv)
    environment = record.step("score-toy").environment
    assert environment["runtime"] == runtime.name and environment["image_id"].startswith("sha256:")
    again, _ = run_plan(toy.plan(), toy.setting(runtime=runtime))
    assert [row.status for row in again.steps] == ["cached"] * 3


def test_a_benchmark_outside_of_the_checkout_is_scored_in_the_common_image(toy, runtime, score_of):
    """Only its folder is its own: the Dockerfile is the shipped one."""
    lock = Path(__file__).parents[3] / "benchmarks/demo_t2i/requirements.lock"
    shutil.copyfile(lock, toy.root / "benchmarks/toy/numpy-pillow.lock")
    toy.edit("benchmarks/toy/benchmark.yaml", "image: toy", "lock: numpy-pillow.lock")
    runtime = make_runtime(runtime.name, find_project(), toy.home)
    record, _ = run_plan(toy.plan(), toy.setting(runtime=runtime))
    assert record.status == "finished", [row.error for row in record.steps]
    assert score_of(toy.runs_dir, record) == score_of(toy.runs_dir, toy.run())
    assert record.step("score-toy").environment["image"].startswith("harness/toy:")


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


def test_too_much_memory_is_told_from_other_failures(toy, runtime):
    hungry = step(
        "{python}", "-c", "x = bytearray(1 << 30); print(len(x))", resources=Resources(memory_gb=0.1, advice="Do this.")
    )
    record, _, _ = run(toy, runtime, hungry)
    told = ["more than its 0.1 GB of memory"]
    if runtime.name == "podman":  # which does not see it with every version of the kernel's cgroups
        told.append("killed by SIGKILL, often because memory ran out")
    assert exit_code(record) == 6 and any(words in record.steps[0].error for words in told)


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
    words = [*toy.run_words(), "--runtime", runtime.name, "--set", "toy.refuse=1"]
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


def test_a_container_ends_with_the_harness_that_is_killed(toy, runtime):
    harness, _ = harness_with_a_container(toy, runtime)
    kill(harness, and_its_watchdog=False)
    deadline = time.monotonic() + 60
    while containers_of(toy, runtime):
        assert time.monotonic() < deadline
        time.sleep(0.1)


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


def test_an_image_that_does_not_build_shows_the_end_of_its_log(toy, runtime):
    toy.edit("docker/toy/Dockerfile", "pip install numpy pillow", "pip install this-is-not-a-package==0")
    record, _, _ = run(toy, runtime, step("{python}", "-V"))
    assert exit_code(record) == 6
    assert "this-is-not-a-package" in record.steps[0].error and "build-image-toy.log" in record.steps[0].error


def containers_of(toy, runtime: ContainerRuntime) -> list[str]:
    if isinstance(runtime, DockerRuntime):
        found = {one.id: one.labels for one in runtime.client.containers.list(all=True, filters={"label": WORK_LABEL})}
    else:
        told = subprocess.run(["podman", "ps", "--all", "--format", "json"], capture_output=True, check=True).stdout
        found = {one["Id"]: one["Labels"] or {} for one in json.loads(told)}
    mine = [name for name, labels in found.items() if WORK_LABEL in labels]
    return [name for name in mine if Path(found[name][WORK_LABEL]).is_relative_to(toy.root)]
