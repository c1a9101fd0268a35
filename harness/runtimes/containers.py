"""Steps in containers: what a container is, as data, and all that does not depend on whose engine runs it.

In the container: inputs read-only at /in/<name>, the output folder at /out, a memory-backed /scratch, the code at /app.
"""

from __future__ import annotations

import dataclasses
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from harness.catalog.project import Project
from harness.contract.digest import digest_json
from harness.contract.errors import UserError
from harness.planning.steps import Environment, Step
from harness.runtimes import Check, OnLine, Outcome, Places, RuntimeOptions, Say, fill_in
from harness.runtimes.image import build_image, context_files, cuda_of, image_digest
from harness.runtimes.venv import SERVICE_PREFIX, VenvRuntime, is_shown, scratch_variables
from harness.runtimes.waiting import Limit
from harness.runtimes.watchdog import OWNER, OWNER_LABEL, WORK_LABEL, watched
from harness.store import lease
from harness.store.folders import walk_files

NOBODY = 1000
"""The uid and gid of containers when the caller is root: any will do, as long as it is not 0."""
PIDS_LIMIT = 4096

_TMPFS = "nosuid,nodev,mode=1777"
_PLACES = {"python": "python", "in": "/in", "out": "/out", "scratch": "/scratch", "code": "/app"}


@dataclass(frozen=True, kw_only=True)
class Bind:
    """A file or folder of this machine in a container."""

    source: Path
    target: str
    read_only: bool = True


@dataclass(frozen=True, kw_only=True)
class Container:
    """What a step's container is made of, for any engine.

    All have a read-only root, no capabilities and no new privileges, a process that reaps, and no user's entry point.
    A scorer reads untrusted files with large libraries: the container confines what goes wrong there.
    """

    image: str
    command: tuple[str, ...]
    uid: int
    """Never 0."""
    gid: int
    network: bool
    """Whether it may reach others; otherwise it has a loopback device only."""
    environment: Mapping[str, str]
    """All of it, apart from what the image sets. Home and caches are in scratch."""
    binds: tuple[Bind, ...]
    tmpfs: Mapping[str, str]
    """Folder in memory -> its mount options."""
    memory_mb: int
    """Without swap."""
    shm_gb: int
    gpus: tuple[str, ...]
    labels: Mapping[str, str]
    """By which it is found when its harness was killed."""
    pids_limit: int = PIDS_LIMIT
    working_dir: str = "/scratch"

    @property
    def environment_words(self) -> list[str]:
        """`--env` for each variable; a secret by its name only, since the command line has the value from its own."""
        return [
            word
            for name, value in self.environment.items()
            for word in ("--env", f"{name}={value}" if is_shown(name) else name)
        ]

    @property
    def bind_words(self) -> list[str]:
        """`--mount` for each bind."""
        modes = {True: ",readonly", False: ""}
        return [
            word
            for bind in self.binds
            for word in ("--mount", f"type=bind,source={bind.source},target={bind.target}{modes[bind.read_only]}")
        ]


class ContainerRuntime(ABC):
    """Containers of one engine; steps without an image run on this machine as with `venv`."""

    name: ClassVar[str]
    """As given to `--runtime`, and the engine's command, which builds images."""

    def __init__(self, project: Project, home: Path, options: RuntimeOptions) -> None:
        self.project = project
        self.home = home
        self.base_image = options.base_image or os.environ.get("BASE_IMAGE") or None
        self.images = dict(options.images)
        self.local = VenvRuntime(project, home)

    # --- what an engine has to provide -------------------------------------------------------------------------------

    @abstractmethod
    def has_image(self, tag: str) -> bool:
        """Whether the engine has the image."""

    @abstractmethod
    def pull(self, tag: str, name: str) -> None:
        """Fetch a ready image for the environment called `name`. Raises EnvironmentFailure."""

    @abstractmethod
    def image_facts(self, tag: str) -> dict[str, Any]:
        """`image_id` and `engine`, for the record."""

    @abstractmethod
    def run_line(self, container: Container) -> list[str]:
        """The container as a command line of the engine, for a person to read, copy and run."""

    @abstractmethod
    def run_container(self, container: Container, step: Step, on_line: OnLine, limit: Limit) -> Outcome:
        """Create the container, follow its output, wait for its end, remove it. Raises EnvironmentFailure."""

    @abstractmethod
    def remove_containers(self, work: Path) -> None:
        """Remove all of a work folder, running or not."""

    @abstractmethod
    def engine_checks(self) -> list[Check]:
        """Whether the engine can be used."""

    @cached_property
    @abstractmethod
    def offers_gpus(self) -> bool:
        """Whether containers can have GPUs."""

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
        return self.has_image(self.tag(environment))

    def prepare(self, environment: Environment, say: Say) -> None:
        """Build the image unless the engine has it; a ready image that was named is pulled instead."""
        if environment.image is None:
            return self.local.prepare(environment, say)
        if self.is_ready(environment):
            return
        tag = self.tag(environment)
        if environment.name in self.images:
            say(f"pulling the image {tag}")
            return self.pull(tag, environment.name)
        waiting = lambda holder: say(f"waiting for {holder}, which is building {tag}")  # noqa: E731
        with lease.held(self._build_lease(tag), on_wait=waiting):
            if not self.is_ready(environment):
                say(f"building the image '{environment.name}' as {tag}")
                log = self.home / "logs" / f"build-image-{environment.name}.log"
                build_image(self.project, environment, tag=tag, base_image=self.base_image, log=log, program=self.name)

    def describe(self, environment: Environment) -> dict[str, Any]:
        """Runtime, image and its id, engine version."""
        if environment.image is None:
            return self.local.describe(environment)
        tag = self.tag(environment)
        row = {"runtime": self.name, "image": tag, **self.image_facts(tag)}
        ready = environment.name in self.images
        cuda = None if ready else cuda_of(context_files(self.project, environment), environment)
        return {**row, "cuda": cuda.version} if cuda else row

    def _build_lease(self, tag: str) -> Path:
        return self.home / "leases" / f"{self.name}-{tag.replace('/', '-').replace(':', '-')}"

    # --- running -----------------------------------------------------------------------------------------------------

    def container(self, step: Step, places: Places) -> Container:
        """The container of a step."""
        return Container(
            image=self.tag(step.environment),
            command=tuple(fill_in(step.argv, _PLACES)),
            uid=os.geteuid() or NOBODY,
            gid=os.getegid() if os.geteuid() else NOBODY,
            network=step.resources.network,
            environment=_variables(step),
            binds=_binds(places),
            tmpfs={"/scratch": f"rw,exec,{_TMPFS}", "/tmp": f"rw,{_TMPFS}"},
            memory_mb=round(step.resources.memory_gb * 1024),
            shm_gb=8 if step.has_service else 1,
            gpus=places.gpus if step.resources.gpus else (),
            labels={WORK_LABEL: str(places.work), OWNER_LABEL: OWNER},
        )

    def command(self, step: Step, places: Places) -> list[str]:
        """A command line that runs the same container; for a step without an image, the one on this machine."""
        if step.environment.image is None:
            return self.local.command(step, places)
        return self.run_line(self.container(step, places))

    def run(self, step: Step, places: Places, on_line: OnLine, stopped: Callable[[], bool]) -> Outcome:
        """Run the step in a container of its own; one whose engine gives no GPUs runs on the CPU, and says so."""
        if step.environment.image is None:
            return self.local.run(step, places, on_line, stopped)
        if places.gpus and not self.offers_gpus:
            on_line("The engine gives no GPUs to containers (see harness doctor): running on CPU.")
            places = dataclasses.replace(places, gpus=())
        refuse_unreadable(places)
        _hand_over(places.output)
        limit = Limit(stopped=stopped, timeout_s=step.resources.timeout_s)
        with watched(places.work, engine=self.name):
            return self.run_container(self.container(step, places), step, on_line, limit)

    def clear(self, places: Places) -> None:
        """Remove containers, and processes, that a killed harness left running in this work folder."""
        self.local.clear(places)
        self.remove_containers(places.work)

    def checks(self) -> list[Check]:
        """The engine, and what steps without an image need."""
        found = self.engine_checks()
        return [*found, *self.local.checks()] if all(check.ok for check in found) else found


def has_cdi_gpu(folders: tuple[str, ...] = ("/etc/cdi", "/var/run/cdi")) -> bool:
    """Whether one of the folders describes NVIDIA's GPUs to engines (Container Device Interface)."""
    files = [path for folder in folders if Path(folder).is_dir() for path in walk_files(Path(folder))]
    return any("nvidia" in path.name for path in files)


def _variables(step: Step) -> dict[str, str]:
    judge = {name: value for name, value in os.environ.items() if name.startswith(SERVICE_PREFIX)}
    threads = {name: value for name, value in os.environ.items() if name.startswith("OMP_")}
    settings = judge if step.resources.network or step.has_service else {}
    # A service may compile kernels and load them, which /tmp does not allow.
    temporary = "/scratch" if step.has_service else "/tmp"
    return {**scratch_variables("/scratch"), "TMPDIR": temporary, **threads, **settings}


def _binds(places: Places) -> tuple[Bind, ...]:
    inputs = (Bind(source=path.resolve(), target=f"/in/{name}") for name, path in places.inputs.items())
    return (*inputs, Bind(source=places.output.resolve(), target="/out", read_only=False))


def refuse_unreadable(places: Places) -> None:
    """Some libraries write weights for their owner alone, and inside they would seem to be missing.

    Raises:
        UserError: root starts the container, whose user could not read an input.
    """
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
