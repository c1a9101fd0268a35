"""Containers of Docker: the hardening, as text."""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path

import pytest

from harness.contract.errors import EnvironmentFailure, UserError
from harness.planning.steps import Environment, Resources, Step
from harness.runtimes import Places, RuntimeOptions
from harness.runtimes.containers import refuse_unreadable
from harness.runtimes.docker import DockerRuntime, sdk_settings

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
    assert runtime.container(asking, places).environment["HARNESS_JUDGE_API_KEY"] == "sk-very-secret"


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


def test_the_sdk_is_told_what_the_command_line_says(runtime, toy):
    places = Places(inputs={}, work=toy.root, gpus=("0", "2"))
    container = runtime.container(step(resources=Resources(gpus=2, memory_gb=1.5)), places)
    settings, line = sdk_settings(container), " ".join(runtime.run_line(container)) + " "
    assert settings["read_only"] and settings["init"] and settings["entrypoint"] == []
    for part in (
        f"--network {settings['network_mode']} ",
        f"--cap-drop={settings['cap_drop'][0]} ",
        f"--security-opt={settings['security_opt'][0]} ",
        f"--memory {settings['mem_limit']} --memory-swap {settings['memswap_limit']} ",
        f"--pids-limit {settings['pids_limit']} --shm-size {settings['shm_size']} ",
        f"--user {settings['user']} --workdir {settings['working_dir']} ",
        *(f"--tmpfs {folder}:{options} " for folder, options in settings["tmpfs"].items()),
        *(f"--env {name}={value} " for name, value in settings["environment"].items()),
        *(f"--mount type=bind,source={mount['Source']},target={mount['Target']}" for mount in settings["mounts"]),
        f'"device={",".join(settings["device_requests"][0]["DeviceIDs"])}" ',
        f"{settings['image']} {' '.join(settings['command'][1:])} ",
    ):
        assert part in line, part


def test_an_engine_that_does_not_answer_is_an_environment_failure(runtime, monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    with pytest.raises(EnvironmentFailure, match="harness doctor"):
        runtime.prepare(TOY, print)
    (check, *_) = runtime.checks()
    assert not check.ok


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
        told = pytest.raises(UserError, match=r"safetensors: can be read .* chmod -R a\+rX")
        with told if refused else nullcontext():
            refuse_unreadable(places)
