"""Runs steps in containers of a Docker engine, through the Docker SDK."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from docker.types import DeviceRequest, Mount

import docker
from harness.contract.errors import EnvironmentFailure, UserError
from harness.planning.steps import Step
from harness.runtimes import Check, OnLine, Outcome
from harness.runtimes.containers import Container, ContainerRuntime, has_cdi_gpu
from harness.runtimes.waiting import GivenUp, Limit, ask
from harness.runtimes.watchdog import WORK_LABEL

_STOP_GRACE_S = 10
_END_S = 30.0
"""After this the end of a container is no longer waited for, whatever its engine says."""
_POLL_S = 0.2
_RUNNING = {"created", "running", "paused", "restarting"}
"""Every other word means that it does not run any more: engines have different ones."""
_KILLED = 137


class DockerRuntime(ContainerRuntime):
    """Containers of the Docker engine that DOCKER_HOST, or the default socket, leads to."""

    name = "docker"

    @cached_property
    def client(self) -> docker.DockerClient:
        """The engine, connected when first needed: planning and printing commands need none."""
        try:
            client = docker.from_env(timeout=120)
            client.ping()
        except DockerException as error:
            raise EnvironmentFailure(
                f"The Docker engine does not answer ({error}); start it, or use --runtime venv. "
                "Check this machine: harness doctor"
            ) from error
        return client

    def has_image(self, tag: str) -> bool:
        """Asks the engine."""
        with _understood("when asked for an image"):
            try:
                self.client.images.get(tag)
            except ImageNotFound:
                return False
            return True

    def pull(self, tag: str, name: str) -> None:
        """Through the engine."""
        try:
            self.client.images.pull(tag)
        except DockerException as error:
            raise EnvironmentFailure(
                f"The image {tag} could not be pulled ({error}); correct --image {name}=IMAGE."
            ) from error

    def image_facts(self, tag: str) -> dict[str, Any]:
        """Id of the image, version of the engine."""
        with _understood("when asked for an image"):
            return {"image_id": self.client.images.get(tag).id, "engine": self.client.version().get("Version")}

    def run_line(self, container: Container) -> list[str]:
        """`docker run` with the meaning of `sdk_settings`."""
        line = ["docker", "run", "--rm", "--init", "--network", "bridge" if container.network else "none"]
        line += ["--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges"]
        line += ["--memory", f"{container.memory_mb}m", "--memory-swap", f"{container.memory_mb}m"]
        line += ["--pids-limit", str(container.pids_limit), "--shm-size", f"{container.shm_gb}g"]
        line += ["--user", f"{container.uid}:{container.gid}", "--workdir", container.working_dir]
        for folder, options in _owned_tmpfs(container).items():
            line += ["--tmpfs", f"{folder}:{options}"]
        line += ["--gpus", f'"device={",".join(container.gpus)}"'] if container.gpus else []
        line += [*container.environment_words, *container.bind_words]
        return [*line, "--entrypoint", container.command[0], container.image, *container.command[1:]]

    def run_container(self, container: Container, step: Step, on_line: OnLine, limit: Limit) -> Outcome:
        """See ContainerRuntime."""
        with _understood(f"during '{step.name}'"):
            return self._run(container, step, on_line, limit)

    def _run(self, container: Container, step: Step, on_line: OnLine, limit: Limit) -> Outcome:
        try:
            created = ask(lambda: self.client.containers.create(**sdk_settings(container)), limit)
        except GivenUp:
            return Outcome(exit_code=_KILLED, seconds=limit.seconds, reason=limit.reason)
        except APIError as error:
            raise EnvironmentFailure(
                f"The container of '{step.name}' could not be created: {error.explanation or error}"
            ) from error
        try:
            return _follow(created, on_line, limit)
        finally:
            with suppress(Exception):  # the engine may be gone, which is the error being reported
                ask(lambda: created.remove(force=True, v=True), Limit(timeout_s=_END_S))

    def remove_containers(self, work: Path) -> None:
        """By their label."""
        with _understood("when asked for its containers"):
            for container in self.client.containers.list(all=True, filters={"label": f"{WORK_LABEL}={work}"}):
                with suppress(NotFound):
                    container.remove(force=True, v=True)

    def engine_checks(self) -> list[Check]:
        """The engine, and whether containers can have GPUs."""
        try:
            with _understood("when asked for its version"):
                version, offers_gpus = self.client.version(), self.offers_gpus
        except EnvironmentFailure as error:
            return [Check(name="docker", ok=False, detail=str(error), fix="start the Docker engine")]
        gpus = "yes" if offers_gpus else "no (install the NVIDIA container toolkit to use them)"
        return [Check(name="docker", ok=True, detail=f"engine {version.get('Version')}, GPUs in containers: {gpus}")]

    @cached_property
    def offers_gpus(self) -> bool:
        """By NVIDIA's runtime, or CDI."""
        info = self.client.info()
        return "nvidia" in info.get("Runtimes", {}) or has_cdi_gpu(tuple(info.get("CDISpecDirs") or ()))


def sdk_settings(container: Container) -> dict[str, Any]:
    """What the container is created with, as keywords of the SDK."""
    memory = f"{container.memory_mb}m"
    gpus = DeviceRequest(driver="nvidia", device_ids=list(container.gpus), capabilities=[["gpu"]])
    return {
        "image": container.image,
        "entrypoint": [],
        "command": list(container.command),
        "user": f"{container.uid}:{container.gid}",
        "working_dir": container.working_dir,
        "environment": dict(container.environment),
        "mounts": [
            Mount(target=bind.target, source=str(bind.source), type="bind", read_only=bind.read_only)
            for bind in container.binds
        ],
        "network_mode": "bridge" if container.network else "none",
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "mem_limit": memory,
        "memswap_limit": memory,
        "pids_limit": container.pids_limit,
        "shm_size": f"{container.shm_gb}g",
        "tmpfs": _owned_tmpfs(container),
        "init": True,
        "labels": dict(container.labels),
        "device_requests": [gpus] if container.gpus else [],
    }


def _owned_tmpfs(container: Container) -> dict[str, str]:
    # Some engines make a folder that is also the working folder root's, whatever its mode.
    owner = f"uid={container.uid},gid={container.gid}"
    return {folder: f"{options},{owner}" for folder, options in container.tmpfs.items()}


@contextmanager
def _understood(when: str) -> Iterator[None]:
    """Turn whatever goes wrong in talking to the engine into one sentence: a program that answers requests for Docker's
    may answer anything."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        said = str(error) if isinstance(error, DockerException) else f"{type(error).__name__}: {error}"
        raise EnvironmentFailure(
            f"The Docker engine failed {when} ({said}); check it with: harness doctor --runtime docker"
        ) from error


# --- one container ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _State:
    """What the engine says about a container."""

    runs: bool
    exit_code: int
    out_of_memory: bool


def _follow(container: Any, on_line: OnLine, limit: Limit) -> Outcome:
    """Start the container, pass its output on, and wait for its end."""
    reader = None
    try:
        # Attached before the start, so that not even the first line is missed.
        stream = ask(lambda: container.attach(stream=True, logs=True, stdout=True, stderr=True), limit)
        ask(container.start, limit)
        reader = threading.Thread(target=_read, args=(stream, on_line), daemon=True)
        reader.start()
        reason, state = "", _wait(container, limit)
    except GivenUp:
        reason = limit.reason
        state = _end(container)
    if reader:
        reader.join(timeout=_STOP_GRACE_S)
    reason = "out of memory" if state.out_of_memory else reason
    return Outcome(exit_code=state.exit_code, seconds=limit.seconds, reason=reason)


def _wait(container: Any, limit: Limit) -> _State:
    """How the container ended by itself; GivenUp when it reaches its limit."""
    while True:
        state = ask(lambda: _state(container), limit)
        if not state.runs:
            return state
        if limit.reason:
            raise GivenUp
        time.sleep(_POLL_S)


def _state(container: Any) -> _State:
    # Not by reload(), which would put nonsense in the place of the id, by which the container is ended and removed.
    said = container.client.api.inspect_container(container.id)["State"]
    return _State(
        runs=said["Status"] in _RUNNING,
        exit_code=int(said["ExitCode"]),
        out_of_memory=bool(said.get("OOMKilled")),
    )


def _end(container: Any) -> _State:
    """Ask the program to end; how it ended, or that it was killed where the engine does not say in time."""
    limit = Limit(timeout_s=_END_S)
    with suppress(Exception):
        ask(lambda: _stop(container), limit)
        return ask(lambda: _state(container), limit)
    return _State(runs=False, exit_code=_KILLED, out_of_memory=False)


def _stop(container: Any) -> None:
    """Ask twice: a container that has just started does not handle the signal yet, and would run on for the whole grace
    period it has for saving its work."""
    with suppress(APIError):  # it may have ended in the meantime
        container.kill("SIGTERM")
        time.sleep(1.0)
        container.stop(timeout=_STOP_GRACE_S)


def _read(stream: Iterator[bytes], on_line: OnLine) -> None:
    """Lines from chunks; a carriage return ends a line too, since progress bars of libraries use it."""
    rest = b""
    with suppress(Exception):  # the engine is gone: who waits for the container's end finds out, and says so
        for chunk in stream:
            *lines, rest = re.split(rb"\r\n|\n|\r", rest + chunk)
            for line in lines:
                on_line(line.decode(errors="replace"))
    if rest:
        on_line(rest.decode(errors="replace"))
