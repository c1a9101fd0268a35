"""Images from `docker/<name>/Dockerfile`: which files a build reads, their digest, and the build itself.

A Dockerfile's `COPY` and bind-mount sources, relative to the project, are all that a build is given: they are copied to
a context of their own, so an image cannot depend on a file that is not in its digest. The tag is that digest, so an
image is built again exactly when something in it has changed.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from harness.catalog.project import Project
from harness.contract.digest import digest_json, sha256_file
from harness.contract.errors import EnvironmentFailure, UserError

_BIND_SOURCE = re.compile(r"--mount=(\S*type=bind\S*)")
_LOG_TAIL = 20


def dockerfile_sources(text: str) -> list[str]:
    """Project-relative paths that a Dockerfile copies or bind-mounts from its context, in order, each once.

    `COPY --from=stage` takes from another stage and is left out.
    """
    sources: list[str] = []
    for instruction, rest in _instructions(text):
        if instruction == "RUN":
            sources += _bind_sources(rest)
        elif instruction in {"COPY", "ADD"}:
            words = shlex.split(rest)
            flags = [word for word in words if word.startswith("--")]
            if not any(flag.startswith("--from=") for flag in flags):
                sources += [word for word in words if not word.startswith("--")][:-1]
    return list(dict.fromkeys(source.strip("/").removeprefix("./") for source in sources))


def context_files(project: Project, image: str) -> dict[str, Path]:
    """Context-relative name -> file, for everything the build of `docker/<image>` reads.

    Raises:
        UserError: there is no such Dockerfile, or it copies what is not there.
    """
    dockerfile = f"docker/{image}/Dockerfile"
    path = project.path(dockerfile)
    files = {dockerfile: path}
    for source in dockerfile_sources(path.read_text(encoding="utf-8")):
        if any(letter in source for letter in "*?[$"):
            raise UserError(
                f"{path}: copies '{source}'; name files and folders outright, so that they can be digested."
            )
        files |= project.code_files([source])
    return dict(sorted(files.items()))


def image_digest(project: Project, image: str, base_image: str | None) -> str:
    """Digest of what a build reads, and of the base image's name where one is given."""
    rows = [[name, sha256_file(path)] for name, path in context_files(project, image).items()]
    return digest_json([rows, base_image])


def build_image(project: Project, image: str, *, tag: str, base_image: str | None, log: Path) -> None:
    """Build an image with BuildKit, which the Dockerfiles' cache mounts need and the engine's own API lacks.

    Raises:
        EnvironmentFailure: the build failed; with the end of its log.
    """
    docker = shutil.which("docker")
    if docker is None:
        raise EnvironmentFailure(
            f"Building the image '{image}' needs the 'docker' command, which is not installed; install it, or name a "
            f"ready image: --image {image}=REPOSITORY@sha256:..."
        )
    with tempfile.TemporaryDirectory(prefix="harness-build-") as folder:
        context = Path(folder)
        for name, path in context_files(project, image).items():
            (context / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, context / name)
        argv = [docker, "build", "--progress=plain", "-f", str(context / "docker" / image / "Dockerfile"), "-t", tag]
        argv += ["--build-arg", f"BASE_IMAGE={base_image}"] if base_image else []
        _run_build([*argv, str(context)], image, log)


def _run_build(argv: list[str], image: str, log: Path) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as handle:
        handle.write(f"$ {shlex.join(argv)}\n")
        handle.flush()
        environment = {**os.environ, "DOCKER_BUILDKIT": "1"}
        outcome = subprocess.run(argv, stdout=handle, stderr=subprocess.STDOUT, env=environment, check=False)
    if outcome.returncode:
        tail = "\n".join(f"    {line}" for line in log.read_text(encoding="utf-8").splitlines()[-_LOG_TAIL:])
        raise EnvironmentFailure(
            f"The image '{image}' could not be built:\n{tail}\n  Whole log: {log}\n"
            "  Behind a mirror, give a base image that knows it: --base-image NAME (or export BASE_IMAGE=NAME)."
        )


def _instructions(text: str) -> Iterator[tuple[str, str]]:
    """(instruction in capitals, its arguments) with continued lines joined and comments left out."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\[ \t]*\n", " ", "\n".join(lines))
    for line in joined.splitlines():
        instruction, _, rest = line.strip().partition(" ")
        if instruction.isalpha():
            yield instruction.upper(), rest


def _bind_sources(rest: str) -> Iterator[str]:
    for options in _BIND_SOURCE.findall(rest):
        settings = dict(option.partition("=")[::2] for option in options.split(","))
        source = settings.get("source") or settings.get("src")
        if source and "from" not in settings:
            yield source
