"""Runs steps in containers, through the Docker SDK. Hardened by default: see `DockerRuntime.settings`.

In the container: inputs read-only at /in/<name>, the output folder at /out, a memory-backed /scratch, the code at /app.
"""

from __future__ import annotations

import dataclasses
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from docker.types import DeviceRequest, Mount

import docker
from harness.catalog.project import Project
from harness.contract.digest import digest_json
from harness.contract.errors import EnvironmentFailure, UserError
from harness.planning.steps import Environment, Step
from harness.runtimes import Check, OnLine, Outcome, Places, RuntimeOptions, Say, fill_in
from harness.runtimes.image import build_image, image_digest
from harness.runtimes.venv import SERVICE_PREFIX, VenvRuntime, is_shown, scratch_variables
from harness.runtimes.waiting import GivenUp, Limit, ask
from harness.runtimes.watchdog import OWNER, OWNER_LABEL, WORK_LABEL, watched
from harness.store import lease
from harness.store.folders import walk_files

NOBODY = 1000
"""The uid and gid of containers when the caller is root: any will do, as long as it is not 0."""
PIDS_LIMIT = 4096

_TMPFS = "nosuid,nodev,mode=1777"
_STOP_GRACE_S = 10
_END_S = 30.0
"""After this the end of a container is no longer waited for, whatever its engine says."""
_POLL_S = 0.2
_RUNNING = {"created", "running", "paused", "restarting"}
"""Every other word means that it does not run any more: engines have different ones."""
_KILLED = 137
_PLACES = {"python": "python", "in": "/in", "out": "/out", "scratch": "/scratch", "code": "/app"}


class DockerRuntime:
    """Containers of one Docker engine; steps without an image run on this machine as with `venv`."""

    name = "docker"

    def __init__(self, project: Project, home: Path, options: RuntimeOptions) -> None:
        self.project = project
        self.home = home
        self.base_image = options.base_image or os.environ.get("BASE_IMAGE") or None
        self.images = dict(options.images)
        self.local = VenvRuntime(project, home)

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

    # --- environments ------------------------------------------------------------------------------------------------

    def environment_digest(self, environment: Environment) -> str:
        """Digest of everything the image is built from, or the name of a ready image (give it with its own digest)."""
        if environment.image is None:
            return self.local.environment_digest(environment)
        content = self.images.get(environment.name) or image_digest(self.project, environment, self.base_image)
        return digest_json({"runtime": self.name, "image": content})

    def tag(self, environment: Environment) -> str:
        """The image's name: by the digest of what it is built from, unless a ready one was named."""
        if environment.name in self.images:
            return self.images[environment.name]
        digest = image_digest(self.project, environment, self.base_image)
        return f"harness/{environment.name.lower()}:{digest[:16]}"  # an engine accepts lower case only

    def is_ready(self, environment: Environment) -> bool:
        """Whether the engine has the image."""
        if environment.image is None:
            return self.local.is_ready(environment)
        with _understood("when asked for an image"):
            try:
                self.client.images.get(self.tag(environment))
            except ImageNotFound:
                return False
        return True

    def prepare(self, environment: Environment, say: Say) -> None:
        """Build the image unless the engine has it; a ready image that was named is pulled instead."""
        if environment.image is None:
            return self.local.prepare(environment, say)
        if self.is_ready(environment):
            return
        tag = self.tag(environment)
        if environment.name in self.images:
            say(f"pulling the image {tag}")
            return self._pull(tag, environment.name)
        waiting = lambda holder: say(f"waiting for {holder}, which is building {tag}")  # noqa: E731
        with lease.held(self.home / "leases" / tag.replace("/", "-").replace(":", "-"), on_wait=waiting):
            if not self.is_ready(environment):
                say(f"building the image '{environment.name}' as {tag}")
                log = self.home / "logs" / f"build-image-{environment.name}.log"
                build_image(self.project, environment, tag=tag, base_image=self.base_image, log=log)

    def describe(self, environment: Environment) -> dict[str, Any]:
        """Runtime, image and its id, engine version."""
        if environment.image is None:
            return self.local.describe(environment)
        with _understood("when asked for an image"):
            image = self.client.images.get(self.tag(environment))
            engine = self.client.version().get("Version")
        return {"runtime": self.name, "image": self.tag(environment), "image_id": image.id, "engine": engine}

    # --- running -----------------------------------------------------------------------------------------------------

    def settings(self, step: Step, places: Places) -> dict[str, Any]:
        """What the container is created with, as keywords of the SDK.

        No network unless the step declares one, read-only root, no capabilities, no new privileges, limits on memory
        and processes, never root, home and caches in scratch. A scorer reads untrusted files with large
        libraries: the container confines what goes wrong there.
        """
        # Some engines make a folder that is also the working folder root's, whatever its mode.
        owner = f"uid={_uid()},gid={_gid()}"
        memory = f"{round(step.resources.memory_gb * 1024)}m"
        return {
            "image": self.tag(step.environment),
            "entrypoint": [],
            "command": fill_in(step.argv, _PLACES),
            "user": f"{_uid()}:{_gid()}",
            "working_dir": "/scratch",
            "environment": self._variables(step),
            "mounts": _mounts(places),
            "network_mode": "bridge" if step.resources.network else "none",
            "read_only": True,
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges"],
            "mem_limit": memory,
            "memswap_limit": memory,
            "pids_limit": PIDS_LIMIT,
            "shm_size": "8g" if step.has_service else "1g",
            "tmpfs": {"/scratch": f"rw,exec,{_TMPFS},{owner}", "/tmp": f"rw,{_TMPFS},{owner}"},
            "init": True,
            "labels": {WORK_LABEL: str(places.work), OWNER_LABEL: OWNER},
            "device_requests": self._device_requests(step, places),
        }

    def command(self, step: Step, places: Places) -> list[str]:
        """The same as `docker run ...`; for a step without an image, the command line on this machine."""
        if step.environment.image is None:
            return self.local.command(step, places)
        return docker_run_line(self.settings(step, places))

    def run(self, step: Step, places: Places, on_line: OnLine, stopped: Callable[[], bool]) -> Outcome:
        """Create the container, follow its output, wait for its end, remove it."""
        if step.environment.image is None:
            return self.local.run(step, places, on_line, stopped)
        if places.gpus and not self._offers_gpus:
            on_line("The engine gives no GPUs to containers (see harness doctor): running on CPU.")
            places = dataclasses.replace(places, gpus=())
        _hand_over(places.output)
        limit = Limit(stopped=stopped, timeout_s=step.resources.timeout_s)
        with watched(places.work, containers=True), _understood(f"during '{step.name}'"):
            return self._run_container(step, places, on_line, limit)

    def _run_container(self, step: Step, places: Places, on_line: OnLine, limit: Limit) -> Outcome:
        try:
            container = ask(lambda: self.client.containers.create(**self.settings(step, places)), limit)
        except GivenUp:
            return Outcome(exit_code=_KILLED, seconds=limit.seconds, reason=limit.reason)
        except APIError as error:
            raise EnvironmentFailure(
                f"The container of '{step.name}' could not be created: {error.explanation or error}"
            ) from error
        try:
            return _follow(container, on_line, limit)
        finally:
            with suppress(Exception):  # the engine may be gone, which is the error being reported
                ask(lambda: container.remove(force=True, v=True), Limit(timeout_s=_END_S))

    def clear(self, places: Places) -> None:
        """Remove containers, and processes, that a killed harness left running in this work folder."""
        self.local.clear(places)
        with _understood("when asked for its containers"):
            for container in self.client.containers.list(all=True, filters={"label": f"{WORK_LABEL}={places.work}"}):
                with suppress(NotFound):
                    container.remove(force=True, v=True)

    def checks(self) -> list[Check]:
        """The engine, BuildKit's command, and whether containers can have GPUs."""
        try:
            with _understood("when asked for its version"):
                version, offers_gpus = self.client.version(), self._offers_gpus
        except EnvironmentFailure as error:
            return [Check(name="docker", ok=False, detail=str(error), fix="start the Docker engine")]
        gpus = "yes" if offers_gpus else "no (install the NVIDIA container toolkit to use them)"
        return [
            Check(name="docker", ok=True, detail=f"engine {version.get('Version')}, GPUs in containers: {gpus}"),
            *self.local.checks(),
        ]

    def _variables(self, step: Step) -> dict[str, str]:
        judge = {name: value for name, value in os.environ.items() if name.startswith(SERVICE_PREFIX)}
        threads = {name: value for name, value in os.environ.items() if name.startswith("OMP_")}
        settings = judge if step.resources.network or step.has_service else {}
        # A service may compile kernels and load them, which /tmp does not allow.
        temporary = "/scratch" if step.has_service else "/tmp"
        return {**scratch_variables("/scratch"), "TMPDIR": temporary, **threads, **settings}

    def _device_requests(self, step: Step, places: Places) -> list[DeviceRequest]:
        """The granted GPUs; empty when the step wants none or the machine has none."""
        if not (step.resources.gpus and places.gpus):
            return []
        return [DeviceRequest(driver="nvidia", device_ids=list(places.gpus), capabilities=[["gpu"]])]

    @cached_property
    def _offers_gpus(self) -> bool:
        info = self.client.info()
        return "nvidia" in info.get("Runtimes", {}) or bool(
            info.get("CDISpecDirs") and _has_cdi_gpu(info["CDISpecDirs"])
        )

    def _pull(self, tag: str, name: str) -> None:
        try:
            self.client.images.pull(tag)
        except DockerException as error:
            raise EnvironmentFailure(
                f"The image {tag} could not be pulled ({error}); correct --image {name}=IMAGE."
            ) from error


def docker_run_line(settings: Mapping[str, Any]) -> list[str]:
    """`docker run` with the meaning of the SDK settings, for a person to read, copy and run."""
    line = ["docker", "run", "--rm", "--init", "--network", settings["network_mode"], "--read-only"]
    line += [f"--cap-drop={capability}" for capability in settings["cap_drop"]]
    line += [f"--security-opt={option}" for option in settings["security_opt"]]
    line += ["--memory", settings["mem_limit"], "--memory-swap", settings["memswap_limit"]]
    line += ["--pids-limit", str(settings["pids_limit"]), "--shm-size", settings["shm_size"]]
    line += ["--user", settings["user"], "--workdir", settings["working_dir"]]
    for folder, options in settings["tmpfs"].items():
        line += ["--tmpfs", f"{folder}:{options}"]
    for request in settings["device_requests"]:
        line += ["--gpus", f'"device={",".join(request["DeviceIDs"])}"']
    for name, value in settings["environment"].items():
        line += ["--env", f"{name}={value}" if is_shown(name) else name]
    for mount in settings["mounts"]:
        mode = ",readonly" if mount["ReadOnly"] else ""
        line += ["--mount", f"type=bind,source={mount['Source']},target={mount['Target']}{mode}"]
    return [*line, "--entrypoint", settings["command"][0], settings["image"], *settings["command"][1:]]


def _mounts(places: Places) -> list[Mount]:
    inputs = [
        Mount(target=f"/in/{name}", source=str(path.resolve()), type="bind", read_only=True)
        for name, path in places.inputs.items()
    ]
    return [*inputs, Mount(target="/out", source=str(places.output.resolve()), type="bind", read_only=False)]


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


def _hand_over(output: Path) -> None:
    """Let the container's user write the output folder, and what an interrupted attempt left in it."""
    if os.geteuid() == 0:
        for path in [output, *output.rglob("*")]:
            os.chown(path, NOBODY, NOBODY, follow_symlinks=False)


def _uid() -> int:
    return os.geteuid() or NOBODY


def _gid() -> int:
    return os.getegid() if os.geteuid() else NOBODY


def _has_cdi_gpu(folders: list[str]) -> bool:
    files = [path for folder in folders if Path(folder).is_dir() for path in walk_files(Path(folder))]
    return any("nvidia" in path.name for path in files)
