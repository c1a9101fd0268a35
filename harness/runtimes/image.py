"""Images from `docker/<folder>/Dockerfile`: which files a build reads, their digest, and the build itself.

A Dockerfile's `COPY` and bind-mount sources, relative to the project, are all that a build gets: they are copied to
a separate context, so an image cannot depend on a file that is not in its digest. The tag is that digest, so an
image is built again exactly when something in it has changed. Build arguments may occur in a source
(`benchmarks/${BENCHMARK}`), and are part of the digest.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from harness.catalog.project import Project
from harness.contract.digest import digest_json, sha256_file
from harness.contract.errors import EnvironmentFailure, UserError
from harness.contract.files import open_log
from harness.planning.steps import Environment
from harness.runtimes.cuda import Cuda, index_of, other_cuda, pins_torch, resolved
from harness.runtimes.installer import run_uv

_BIND_SOURCE = re.compile(r"--mount=(\S*type=bind\S*)")
_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)\})")
_LOG_TAIL = 20
_BUILD_OPTIONS = {"docker": ["--progress=plain"], "podman": ["--layers=false"]}
"""Podman's cache knows a RUN by its text, not by the files that are mounted into it: the image of one benchmark would
get the environment of another, whose lock is mounted at the same place."""


def dockerfile_sources(text: str, arguments: Mapping[str, str]) -> list[str]:
    """Project-relative paths that a Dockerfile copies or bind-mounts from its context, in order, each once.

    Build arguments in a path are filled in, from `arguments` or the default of their `ARG`; other variables
    stay as they are. `COPY --from=stage` copies from another stage and is left out.
    """
    known: dict[str, str] = {}
    sources: list[str] = []
    for instruction, rest in _instructions(text):
        if instruction == "ARG":
            known |= _defaults(rest)
        elif instruction == "RUN":
            sources += [_fill_in(source, {**known, **arguments}) for source in _bind_sources(rest)]
        elif instruction in {"COPY", "ADD"}:
            words = shlex.split(_fill_in(rest, {**known, **arguments}))
            flags = [word for word in words if word.startswith("--")]
            if not any(flag.startswith("--from=") for flag in flags):
                sources += [word for word in words if not word.startswith("--")][:-1]
    return list(dict.fromkeys(source.strip("/").removeprefix("./") for source in sources))


def context_files(project: Project, environment: Environment) -> dict[str, Path]:
    """Context-relative name -> file, for everything the build of the environment's image reads.

    Raises:
        UserError: there is no such Dockerfile, or it copies what is not there.
    """
    dockerfile = f"docker/{environment.image}/Dockerfile"
    path = project.path(dockerfile)
    files = {dockerfile: path}
    for source in dockerfile_sources(path.read_text(encoding="utf-8"), dict(environment.build_arguments)):
        if any(letter in source for letter in "*?[$"):
            raise UserError(
                f"{path}: copies '{source}'; name files and folders without wildcards, so that they can be digested."
            )
        try:
            files |= project.code_files([source])
        except UserError as error:
            raise UserError(
                f"The image of '{environment.name}' cannot be built: {path} copies {source}. {error}"
            ) from error
    return dict(sorted(files.items()))


def image_digest(project: Project, environment: Environment, base_image: str | None) -> str:
    """Digest of what a build reads, of its arguments, and of the base image's name where one is given."""
    files = context_files(project, environment)
    rows = [[name, sha256_file(path)] for name, path in files.items()]
    parts = [rows, dict(environment.build_arguments), base_image]
    cuda = cuda_of(files, environment)
    return digest_json([*parts, cuda.tag] if cuda else parts)


def cuda_of(files: Mapping[str, Path], environment: Environment) -> Cuda | None:
    """The CUDA that the locks in a build's context have to be resolved for; None: they can be used as they are.

    The environment's own lock decides, or where it names none, each of them.
    """
    locks = [path for name, path in files.items() if name.endswith(".lock") and environment.lock in (None, name)]
    return next((cuda for lock in locks if (cuda := other_cuda(lock))), None)


def fill_context(project: Project, environment: Environment, context: Path, locks: Path, log: Path) -> dict[str, str]:
    """Copy what a build reads into its context, and return further build arguments.

    Args:
        project: where the files are.
        environment: whose image it is.
        context: the folder to fill.
        locks: where locks that have been resolved for another CUDA are kept.
        log: gets what uv says.
    """
    files = context_files(project, environment)
    cuda = cuda_of(files, environment)
    for name, path in files.items():
        (context / name).parent.mkdir(parents=True, exist_ok=True)
        if cuda and name.endswith(".lock") and pins_torch(path):
            path = resolved(path, cuda, environment.python, locks, lambda words: run_uv(words, log, environment))
        shutil.copyfile(path, context / name)
    return {"TORCH_INDEX": index_of(cuda), "CUDA_IMAGE": cuda.image} if cuda else {}


def build_image(
    project: Project, environment: Environment, *, tag: str, base_image: str | None, log: Path, program: str
) -> None:
    """Build an image by a command, "docker" or "podman": it knows the Dockerfiles' mounts, which engines' APIs lack.

    Raises:
        EnvironmentFailure: the build failed; with the end of its log.
    """
    if shutil.which(program) is None:
        raise EnvironmentFailure(
            f"Building the image of '{environment.name}' needs the '{program}' command, which is not installed; "
            f"install it, or name a ready image: --image {environment.name}=REPOSITORY@sha256:..."
        )
    arguments = dict(environment.build_arguments) | ({"BASE_IMAGE": base_image} if base_image else {})
    with tempfile.TemporaryDirectory(prefix="harness-build-") as folder:
        context = Path(folder)
        arguments |= fill_context(project, environment, context, log.parent.parent / "locks", log)
        dockerfile = context / "docker" / str(environment.image) / "Dockerfile"
        argv = [program, "build", *_BUILD_OPTIONS[program], "-f", str(dockerfile), "-t", tag]
        argv += [word for name, value in arguments.items() for word in ("--build-arg", f"{name}={value}")]
        _run_build([*argv, str(context)], environment.name, log)


def _run_build(argv: list[str], name: str, log: Path) -> None:
    with open_log(log, "w") as handle:
        handle.write(f"$ {shlex.join(argv)}\n")
        handle.flush()
        environment = {**os.environ, "DOCKER_BUILDKIT": "1"}
        outcome = subprocess.run(argv, stdout=handle, stderr=subprocess.STDOUT, env=environment, check=False)
    if outcome.returncode:
        tail = "\n".join(f"    {line}" for line in log.read_text(encoding="utf-8").splitlines()[-_LOG_TAIL:])
        raise EnvironmentFailure(
            f"The image of '{name}' could not be built:\n{tail}\n  Whole log: {log}\n"
            "  Behind a package mirror, give a base image set up for it: --base-image NAME (or export BASE_IMAGE=NAME)."
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


def _defaults(rest: str) -> dict[str, str]:
    """Arguments that an `ARG` instruction gives a default to."""
    words = (word.partition("=") for word in shlex.split(rest))
    return {name: value for name, equals, value in words if equals}


def _fill_in(text: str, values: Mapping[str, str]) -> str:
    return _VARIABLE.sub(lambda match: values.get(match[1] or match[2], match[0]), text)
