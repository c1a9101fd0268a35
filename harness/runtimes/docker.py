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
from contextlib import suppress
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
from harness.runtimes.image import build_image, context_files, cuda_of, image_digest
from harness.runtimes.venv import SERVICE_PREFIX, VenvRuntime, is_shown, scratch_variables
from harness.runtimes.watchdog import OWNER, OWNER_LABEL, WORK_LABEL, watched
from harness.store import lease
from harness.store.folders import walk_files

NOBODY = 1000
"""The uid and gid of containers when the caller is root: any will do, as long as it is not 0."""
PIDS_LIMIT = 4096

_TMPFS = "nosuid,nodev,mode=1777"
_STOP_GRACE_S = 10
_POLL_S = 0.2
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
        image = self.client.images.get(self.tag(environment))
        engine = self.client.version().get("Version")
        row = {"runtime": self.name, "image": self.tag(environment), "image_id": image.id, "engine": engine}
        ready = environment.name in self.images
        cuda = None if ready else cuda_of(context_files(self.project, environment), environment)
        return {**row, "cuda": cuda.version} if cuda else row

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
        _refuse_unreadable(places)
        _hand_over(places.output)
        with watched(places.work, containers=True):
            return self._run_container(step, places, on_line, stopped)

    def _run_container(self, step: Step, places: Places, on_line: OnLine, stopped: Callable[[], bool]) -> Outcome:
        started = time.monotonic()
        try:
            container = self.client.containers.create(**self.settings(step, places))
        except APIError as error:
            raise EnvironmentFailure(
                f"The container of '{step.name}' could not be created: {error.explanation or error}"
            ) from error
        try:
            return self._follow(container, step, on_line, stopped, started)
        except DockerException as error:
            raise EnvironmentFailure(f"The Docker engine failed during '{step.name}': {error}") from error
        finally:
            with suppress(DockerException):  # the engine may be gone, which is the error being reported
                container.remove(force=True, v=True)

    def clear(self, places: Places) -> None:
        """Remove containers, and processes, that a killed harness left running in this work folder."""
        self.local.clear(places)
        for container in self.client.containers.list(all=True, filters={"label": f"{WORK_LABEL}={places.work}"}):
            with suppress(NotFound):
                container.remove(force=True, v=True)

    def checks(self) -> list[Check]:
        """The engine, BuildKit's command, and whether containers can have GPUs."""
        try:
            version = self.client.version()
        except EnvironmentFailure as error:
            return [Check(name="docker", ok=False, detail=str(error), fix="start the Docker engine")]
        gpus = "yes" if self._offers_gpus else "no (install the NVIDIA container toolkit to use them)"
        return [
            Check(name="docker", ok=True, detail=f"engine {version.get('Version')}, GPUs in containers: {gpus}"),
            *self.local.checks(),
        ]

    def _follow(
        self, container: Any, step: Step, on_line: OnLine, stopped: Callable[[], bool], started: float
    ) -> Outcome:
        # Attached before the start, so that not even the first line is missed.
        stream = container.attach(stream=True, logs=True, stdout=True, stderr=True)
        reader = threading.Thread(target=_read, args=(stream, on_line), daemon=True)
        container.start()
        reader.start()
        reason = self._wait(container, stopped, started, step.resources.timeout_s)
        reader.join(timeout=_STOP_GRACE_S)
        state = container.attrs["State"]
        if state.get("OOMKilled"):
            reason = "out of memory"
        return Outcome(exit_code=int(state["ExitCode"]), seconds=time.monotonic() - started, reason=reason)

    def _wait(self, container: Any, stopped: Callable[[], bool], started: float, timeout_s: float | None) -> str:
        reason = ""
        while True:
            container.reload()
            if container.status in {"exited", "dead"}:
                return reason
            late = timeout_s is not None and time.monotonic() - started > timeout_s
            if late or stopped():
                reason = "timeout" if late else "cancelled"
                _end(container)
            time.sleep(_POLL_S)

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


def _end(container: Any) -> None:
    """Ask the program to end, twice: a container that has just started does not handle the signal yet, and would run on
    for the whole grace period it has for saving its work."""
    with suppress(APIError):  # it may have ended in the meantime
        container.kill("SIGTERM")
        time.sleep(1.0)
        container.stop(timeout=_STOP_GRACE_S)


def _read(stream: Iterator[bytes], on_line: OnLine) -> None:
    """Lines from chunks; a carriage return ends a line too, since progress bars of libraries use it."""
    rest = b""
    for chunk in stream:
        *lines, rest = re.split(rb"\r\n|\n|\r", rest + chunk)
        for line in lines:
            on_line(line.decode(errors="replace"))
    if rest:
        on_line(rest.decode(errors="replace"))


def _refuse_unreadable(places: Places) -> None:
    """Some libraries write weights for their owner alone, and inside they would be missing."""
    if os.geteuid() != 0:
        return
    for given in places.inputs.values():
        for path in [given, *(walk_files(given) if given.is_dir() else ())]:
            if not path.stat().st_mode & 0o004:
                raise UserError(
                    f"{path}: can be read by its owner alone, and a container's user is another one when root starts "
                    f"it; let others read it: chmod -R a+rX {given}"
                )


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
