"""Runs steps in containers of Podman, through its own command line: no daemon, no root, no socket.

Its socket speaks Docker's protocol, but knows no `uid=` of a tmpfs and ignores requests for GPUs.
"""

from __future__ import annotations

import dataclasses
import json
import os
import secrets
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from harness.contract.errors import EnvironmentFailure
from harness.planning.steps import Step
from harness.runtimes import Check, OnLine, Outcome
from harness.runtimes.containers import Container, ContainerRuntime, has_cdi_gpu
from harness.runtimes.process import run_process
from harness.runtimes.waiting import Limit
from harness.runtimes.watchdog import WORK_LABEL, remove_podman_containers

_ANSWER_S = 60.0
"""For what Podman does at once, unless the machine is very busy; more than the grace period."""
_STOP_GRACE_S = 10
_NOT_ENDED = {"created", "configured", "initialized", "running", "paused"}
_LIMITS = {"memory", "pids"}
"""Controllers of the kernel that an account without root may have to be given."""


class PodmanRuntime(ContainerRuntime):
    """Containers of the caller's own Podman, rootless unless the caller is root."""

    name = "podman"

    def has_image(self, tag: str) -> bool:
        """Whether Podman's storage has it."""
        return _podman("image", "exists", tag, may_fail=True).returncode == 0

    def pull(self, tag: str, name: str) -> None:
        """By `podman pull`, without a time limit."""
        done = _podman("pull", "--quiet", tag, may_fail=True, endless=True)
        if done.returncode:
            raise EnvironmentFailure(
                f"The image {tag} could not be pulled ({_last_line(done.stderr)}); correct --image {name}=IMAGE."
            )

    def image_facts(self, tag: str) -> dict[str, Any]:
        """Id of the image, version of Podman."""
        identity = _podman("image", "inspect", "--format", "{{.Id}}", tag).stdout.strip()
        version = _podman("version", "--format", "{{.Client.Version}}").stdout.strip()
        return {"image_id": f"sha256:{identity.removeprefix('sha256:')}", "engine": version}

    def run_line(self, container: Container) -> list[str]:
        """`podman run`."""
        return ["podman", "run", "--rm", *container_words(container)]

    def run_container(self, container: Container, step: Step, on_line: OnLine, limit: Limit) -> Outcome:
        """See ContainerRuntime. In two commands, so that what Podman refuses is told from what the program did."""
        name = f"harness-{secrets.token_hex(8)}"
        labels = [word for label in container.labels.items() for word in ("--label", "=".join(label))]
        # Without a log of its own: what is attached gets every line.
        create = ["create", "--name", name, "--log-driver", "none", *labels, *container_words(container)]
        try:
            lines: list[str] = []
            created = _follow(create, lines.append, limit)
            if created.reason:
                return created
            if created.exit_code:
                raise EnvironmentFailure(f"The container of '{step.name}' could not be created: {_last(lines)}")
            return _run(name, step, on_line, limit)
        finally:
            with suppress(EnvironmentFailure):  # where Podman fails, that is the error being reported
                _podman("rm", "--force", "--ignore", "--time", "0", "--volumes", name, may_fail=True)

    def remove_containers(self, work: Path) -> None:
        """By their label."""
        try:
            remove_podman_containers({WORK_LABEL: str(work)}, timeout_s=_ANSWER_S)
        except (OSError, subprocess.SubprocessError) as error:
            raise _failure(error) from error

    def engine_checks(self) -> list[Check]:
        """Podman, whether containers can have GPUs, and whether limits can be set."""
        try:
            told = json.loads(_podman("info", "--format", "json").stdout)
            host, version = told["host"], told["version"]["Version"]
            rootless = "rootless" if host["security"]["rootless"] else "as root"
        except (EnvironmentFailure, ValueError, LookupError, TypeError) as error:
            return [Check(name="podman", ok=False, detail=str(error), fix="install Podman; podman info must work")]
        gpus = "yes" if self.offers_gpus else "no (nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml)"
        detail = f"{version}, {rootless}, GPUs in containers: {gpus}"
        return [Check(name="podman", ok=True, detail=detail), *_check_limits(host.get("cgroupControllers") or [])]

    @cached_property
    def offers_gpus(self) -> bool:
        """By CDI, the only way that Podman has."""
        return has_cdi_gpu()


def container_words(container: Container) -> list[str]:
    """Options of `podman run` and `podman create`, image and command."""
    line = ["--init", "--network", "private" if container.network else "none"]
    # Proxies of the shell are credentials at times, and not for every step. A security label would keep the container
    # from reading the user's own folders where SELinux is on, and giving them one would change the user's files.
    line += ["--http-proxy=false", "--pull=never", "--security-opt=label=disable"]
    line += ["--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges"]
    line += ["--memory", f"{container.memory_mb}m", "--memory-swap", f"{container.memory_mb}m"]
    line += ["--pids-limit", str(container.pids_limit), "--shm-size", f"{container.shm_gb}g"]
    line += ["--userns=keep-id"] if os.geteuid() else []  # the caller's uid inside is the caller's outside
    line += ["--user", f"{container.uid}:{container.gid}", "--workdir", container.working_dir]
    for folder, options in container.tmpfs.items():
        line += ["--tmpfs", f"{folder}:{options},notmpcopyup"]
    for gpu in container.gpus:
        line += ["--device", f"nvidia.com/gpu={gpu}"]
    line += [*container.environment_words, *container.bind_words]
    return [*line, "--entrypoint", container.command[0], container.image, *container.command[1:]]


def _run(name: str, step: Step, on_line: OnLine, limit: Limit) -> Outcome:
    """Start a container and wait for its end."""
    outcome = _follow(["start", "--attach", name], on_line, limit)
    if outcome.reason:
        return _ended(name, outcome)
    state = _state(name)
    if state["Status"] in _NOT_ENDED:
        raise EnvironmentFailure(
            f"Podman could not run the container of '{step.name}' to its end; its log has what Podman said."
        )
    return dataclasses.replace(outcome, reason="out of memory" if state.get("OOMKilled") else "")


def _ended(name: str, outcome: Outcome) -> Outcome:
    """`outcome` of a container that had to end, which it has now, or is asked for once more; removing it kills it."""
    with suppress(EnvironmentFailure):
        _podman("stop", "--time", str(_STOP_GRACE_S), name, may_fail=True)
        if _state(name).get("OOMKilled"):
            return dataclasses.replace(outcome, reason="out of memory")
    return outcome


def _follow(words: Sequence[str], on_line: OnLine, limit: Limit) -> Outcome:
    """A command of Podman's for as long as the step may run; it passes signals on to an attached container."""
    remaining = None if limit.timeout_s is None else max(0.0, limit.timeout_s - limit.seconds)
    return run_process(
        ["podman", *words], env=os.environ, cwd=Path("/"), on_line=on_line, stopped=limit.stopped, timeout_s=remaining
    )


def _state(name: str) -> dict[str, Any]:
    try:
        said = json.loads(_podman("container", "inspect", "--format", "{{json .State}}", name).stdout)
        return {**said, "Status": str(said["Status"])}
    except (ValueError, LookupError, TypeError) as error:
        raise EnvironmentFailure(
            f"Podman does not say how a container ended ({error}); check it with: harness doctor --runtime podman"
        ) from error


def _podman(*words: str, may_fail: bool = False, endless: bool = False) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            ["podman", *words],
            check=not may_fail,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            stdin=subprocess.DEVNULL,
            timeout=None if endless else _ANSWER_S,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise _failure(error) from error


def _failure(error: OSError | subprocess.SubprocessError) -> EnvironmentFailure:
    if shutil.which("podman") is None:
        return EnvironmentFailure("Podman is not installed (no 'podman' on PATH); install it, or use --runtime venv.")
    said = _last_line(error.stderr) if isinstance(error, subprocess.CalledProcessError) else str(error)
    return EnvironmentFailure(f"Podman failed ({said}); check it with: harness doctor --runtime podman")


def _last_line(text: str | None) -> str:
    return _last((text or "").splitlines())


def _last(lines: Sequence[str]) -> str:
    return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")


def _check_limits(controllers: Sequence[str]) -> list[Check]:
    lacking = sorted(_LIMITS.difference(controllers))
    if not lacking:
        return []
    return [
        Check(
            name="podman limits",
            ok=False,
            detail=f"this account's containers get no limit on {' and '.join(lacking)}",
            fix="cgroups v2, with Delegate=memory pids in the systemd unit user@.service",
        )
    ]
