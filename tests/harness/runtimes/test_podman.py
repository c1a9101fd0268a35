"""Containers of Podman: its command lines, as text, and a Podman that lies, as a program on PATH."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.contract.errors import EnvironmentFailure
from harness.planning.steps import Resources, Step
from harness.runtimes import Outcome, Places, RuntimeOptions, make_runtime, podman
from harness.runtimes.podman import PodmanRuntime, container_words
from tests.harness.conftest import Toy
from tests.harness.runtimes.test_docker import TOY, step

READY = RuntimeOptions(images={"toy": "toy:ready"})
THREADS = "OMP_NUM_THREADS"


@pytest.fixture
def runtime(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> PodmanRuntime:
    for name in [name for name in os.environ if name.startswith(("OMP_", "HARNESS_JUDGE"))]:
        monkeypatch.delenv(name)
    made = make_runtime("podman", toy.project, toy.home, READY)
    assert isinstance(made, PodmanRuntime)
    return made


# --- as text ---------------------------------------------------------------------------------------------------------


def rootless_line(runtime: PodmanRuntime, monkeypatch: pytest.MonkeyPatch, one: Step, places: Places) -> str:
    monkeypatch.setattr(os, "geteuid", lambda: 4321)
    monkeypatch.setattr(os, "getegid", lambda: 100)
    return " ".join(runtime.command(one, places))


def test_a_step_becomes_a_hardened_podman_run(runtime, toy, monkeypatch):
    (toy.root / "a").touch()
    places = Places(inputs={"a": toy.root / "a"}, work=toy.root / "work", gpus=("0", "2"))
    one = step(resources=Resources(memory_gb=1.5, gpus=2))
    assert rootless_line(runtime, monkeypatch, one, places) == (
        "podman run --rm --init --network none --http-proxy=false --pull=never --security-opt=label=disable "
        "--read-only --cap-drop=ALL --security-opt=no-new-privileges --memory 1536m --memory-swap 1536m "
        "--pids-limit 4096 --shm-size 1g --userns=keep-id --user 4321:100 --workdir /scratch "
        "--tmpfs /scratch:rw,exec,nosuid,nodev,mode=1777,notmpcopyup "
        "--tmpfs /tmp:rw,nosuid,nodev,mode=1777,notmpcopyup "
        "--device nvidia.com/gpu=0 --device nvidia.com/gpu=2 "
        "--env HOME=/scratch --env XDG_CACHE_HOME=/scratch/cache --env MPLCONFIGDIR=/scratch/cache/matplotlib "
        "--env TORCH_HOME=/scratch/cache/torch --env HF_HOME=/scratch/cache/huggingface --env HF_HUB_OFFLINE=1 "
        "--env TRANSFORMERS_OFFLINE=1 --env PYTHONNOUSERSITE=1 --env PYTHONUNBUFFERED=1 --env PYTHONUTF8=1 "
        "--env OMP_WAIT_POLICY=PASSIVE --env OPENBLAS_THREAD_TIMEOUT=4 --env TMPDIR=/tmp "
        f"--mount type=bind,source={toy.root}/a,target=/in/a,readonly "
        f"--mount type=bind,source={toy.root}/work/output,target=/out "
        "--entrypoint python toy:ready /app/x.py /in/a /out"
    )


def test_with_a_network_and_a_judge(runtime, toy, monkeypatch):
    monkeypatch.setenv("HARNESS_JUDGE_URL", "http://judge")
    monkeypatch.setenv("HARNESS_JUDGE_API_KEY", "sk-very-secret")
    monkeypatch.setenv("SECRET_TOKEN", "hush")
    line = rootless_line(
        runtime, monkeypatch, step(resources=Resources(network=True)), Places(inputs={}, work=toy.root)
    )
    assert "--network private" in line and "--env HARNESS_JUDGE_URL=http://judge" in line
    assert "--env HARNESS_JUDGE_API_KEY " in line and "sk-very" not in line and "hush" not in line


def test_root_needs_no_user_namespace_and_containers_are_never_root(runtime, toy, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    words = runtime.command(step(), Places(inputs={}, work=toy.root))
    assert not any("userns" in word for word in words) and words[words.index("--user") + 1] == "1000:1000"


def test_the_container_that_runs_is_the_one_that_is_shown(runtime, toy):
    container = runtime.container(step(), Places(inputs={}, work=toy.root))
    assert runtime.run_line(container) == ["podman", "run", "--rm", *container_words(container)]


def test_scores_of_one_runtime_are_not_taken_for_those_of_another(runtime, toy):
    docker = make_runtime("docker", toy.project, toy.home, READY)
    assert runtime.environment_digest(TOY) != docker.environment_digest(TOY)


# --- a Podman that lies ----------------------------------------------------------------------------------------------

PROGRAM = """#!/bin/sh
echo "$*" >>"{trace}"
case "$1 $2" in
  "create "*) {create} ;;
  "start "*) {start} ;;
  "container inspect") {inspect} ;;
  "info "*) {info} ;;
  "ps "*) {ps} ;;
  *) {others} ;;
esac
"""
ENDED = """echo '{"Status": "stopped", "ExitCode": 3, "OOMKilled": false}'"""
HANGS = "exec sleep 600"


class Lying:
    """A program called podman, and a step to run with it."""

    def __init__(self, toy: Toy, runtime: PodmanRuntime) -> None:
        self.runtime, self.root = runtime, toy.root
        self.places = Places(inputs={}, work=toy.root / "work")
        self.places.output.mkdir(parents=True)
        self.lines: list[str] = []
        (toy.root / "bin").mkdir()
        self.says()

    def says(self, **answers: str) -> None:
        """What it does when called with a word, as lines of a shell."""
        usual = {"create": "echo abc", "start": "echo hello; exit 3", "inspect": ENDED, "info": "exit 0"}
        words = {**usual, "ps": "exit 0", "others": "exit 0", **answers, "trace": self.root / "called.txt"}
        program = self.root / "bin" / "podman"
        text = PROGRAM
        for name, answer in words.items():
            text = text.replace(f"{{{name}}}", str(answer))
        program.write_text(text)
        program.chmod(0o755)

    @property
    def called(self) -> list[str]:
        return (self.root / "called.txt").read_text().splitlines()

    def run(self, timeout_s: float | None = None) -> Outcome:
        one = step(resources=Resources(timeout_s=timeout_s))
        begins = lambda: timeout_s is None and (self.root / "stop").exists()  # noqa: E731
        return self.runtime.run(one, self.places, self.lines.append, begins)


@pytest.fixture
def lying(toy: Toy, runtime: PodmanRuntime, monkeypatch: pytest.MonkeyPatch) -> Lying:
    monkeypatch.setenv("PATH", f"{toy.root}/bin{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(podman, "_ANSWER_S", 1.0)
    return Lying(toy, runtime)


def test_a_container_is_created_started_asked_about_and_removed(lying):
    outcome = lying.run()
    assert (outcome.exit_code, outcome.reason, lying.lines) == (3, "", ["hello"])
    assert [line.split()[0] for line in lying.called] == ["create", "start", "container", "rm"]
    assert "--label harness.work=" in lying.called[0]


def test_too_much_memory_is_told_from_other_ends(lying):
    lying.says(start="exit 137", inspect=ENDED.replace("false", "true"))
    assert lying.run().reason == "out of memory"


@pytest.mark.parametrize("answer", ["exit 125", "echo nonsense", "echo '[]'", "echo '{}'", "echo null", HANGS])
def test_nonsense_about_the_end_is_a_sentence_and_the_container_is_removed(lying, answer):
    lying.says(inspect=answer)
    with pytest.raises(EnvironmentFailure, match=r"^Podman .*; check it with: harness doctor --runtime podman$"):
        lying.run()
    assert lying.called[-1].startswith("rm --force")


def test_a_container_that_cannot_be_created_or_started_is_no_failure_of_the_scorers(lying):
    lying.says(create="echo 'Error: unresolvable CDI devices nvidia.com/gpu=0' >&2; exit 126")
    with pytest.raises(EnvironmentFailure, match="could not be created: Error: unresolvable CDI"):
        lying.run()
    lying.says(start="echo 'Error: runc is missing' >&2; exit 127", inspect=ENDED.replace("stopped", "created"))
    with pytest.raises(EnvironmentFailure, match="Podman could not run the container of 's'"):
        lying.run()
    assert lying.lines == ["Error: runc is missing"]


@pytest.mark.parametrize("silent", ["create", "start"])
def test_the_time_limit_and_ctrl_c_work_while_podman_is_silent(lying, silent):
    lying.says(**{silent: HANGS})
    assert lying.run(timeout_s=0.3).reason == "timeout"
    lying.says(**{silent: f"touch {lying.root}/stop; {HANGS}"})
    assert lying.run().reason == "cancelled"
    assert lying.called[-1].startswith("rm --force")


def test_a_container_that_is_said_to_run_for_ever_ends_the_step_all_the_same(lying):
    lying.says(start=HANGS, inspect=ENDED.replace("stopped", "running"), others=HANGS)
    assert lying.run(timeout_s=0.3).reason == "timeout"
    assert lying.called[-1].startswith("rm --force")


def test_a_machine_without_podman_or_with_a_broken_one_is_told_so(lying, monkeypatch):
    lying.says(info="echo '{}'", ps="exit 1")
    (check,) = lying.runtime.checks()
    assert not check.ok
    with pytest.raises(EnvironmentFailure, match="Podman failed"):
        lying.runtime.clear(lying.places)
    monkeypatch.setenv("PATH", str(lying.root))
    with pytest.raises(EnvironmentFailure, match="not installed"):
        lying.runtime.prepare(TOY, print)
    (check,) = lying.runtime.checks()
    assert not check.ok and "not installed" in check.detail


def test_doctor_names_limits_that_an_account_cannot_set(lying):
    info = """echo '{"host": {"security": {"rootless": true}, "cgroupControllers": ["cpu", "pids"]}, \
"version": {"Version": "9"}}'"""
    lying.says(info=info)
    engine, limits = lying.runtime.engine_checks()
    assert engine.ok and "9, rootless" in engine.detail
    assert not limits.ok and limits.detail.endswith("no limit on memory")


def test_images_are_built_by_podman_with_the_same_arguments(lying):
    runtime = make_runtime("podman", lying.runtime.project, lying.root / "home")
    folder = lying.root / "docker" / "toy"
    folder.mkdir(parents=True)
    Path(folder / "Dockerfile").write_text("FROM scratch\n")
    lying.says(others='[ "$1 $2" != "image exists" ]')
    runtime.prepare(TOY, print)
    (build,) = [line for line in lying.called if line.startswith("build ")]
    assert f"-t {runtime.tag(TOY)} " in build and "--layers=false" in build and "--progress" not in build
    assert runtime.tag(TOY) == make_runtime("docker", lying.runtime.project, lying.root / "home").tag(TOY)
