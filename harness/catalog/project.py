"""Where benchmark folders, Dockerfiles and the code of the steps are: a checkout, a folder of one's own, a wheel."""

from __future__ import annotations

import os
import shutil
import site
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.contract.digest import digest_json, sha256_file
from harness.contract.errors import UserError
from harness.contract.files import safe_join
from harness.store.folders import publish_folder

PACKAGE_DIR = Path(__file__).resolve().parents[1]
"""The folder of the `harness` package itself."""

_NOT_CODE = frozenset({"benchmark.yaml", "assets.yaml", "requirements.in", "requirements.lock"})
_NOT_CODE_SUFFIXES = frozenset({".md", ".pyc"})
_NOT_CODE_FOLDERS = frozenset({"__pycache__", "check", "tests", "_bundled"})


@dataclass(frozen=True, kw_only=True)
class Project:
    """The folders that steps are made from."""

    benchmarks_dir: Path
    """Holds one folder per benchmark."""
    docker_dir: Path
    """Holds one folder per image."""
    package_parent: Path = PACKAGE_DIR.parent
    """Holds the packages `harness` and `gear`: a checkout, or site-packages."""

    def path(self, relative: str) -> Path:
        """The place of a project-relative path such as `benchmarks/adm/scorer.py` or `harness/contract`.

        Raises:
            UserError: the path leaves the project, or nothing is there.
        """
        head, _, rest = relative.partition("/")
        roots = {"benchmarks": self.benchmarks_dir, "docker": self.docker_dir}
        root = roots.get(head, self.package_parent / head)
        found = safe_join(root, rest) if rest else root
        if not found.exists():
            raise UserError(f"{found}: does not exist, but is needed as '{relative}'; check the checkout or the wheel.")
        return found

    def code_files(self, relatives: Iterable[str]) -> dict[str, Path]:
        """Project-relative name -> file, for every file of code under the given files and folders, sorted.

        A file named outright is always taken. Of a folder, what people read (`*.md`), tests, gold checks, and what is
        keyed on its own (`benchmark.yaml`, locks) is left out: neither hashed, nor shown to a step, nor in an image.
        """
        files: dict[str, Path] = {}
        for relative in relatives:
            path = self.path(relative)
            if path.is_file():
                files[relative] = path
            else:
                files.update((f"{relative}/{inner.relative_to(path).as_posix()}", inner) for inner in _walk_code(path))
        return dict(sorted(files.items()))

    def code_digest(self, relatives: Iterable[str]) -> str:
        """Digest of the code under the given files and folders: names and contents."""
        return digest_json([[name, sha256_file(path)] for name, path in self.code_files(relatives).items()])

    def stage_code(self, relatives: Sequence[str], home: Path) -> Path:
        """Copy the code under `relatives` to a folder of `home` named by its digest, once, and return the folder.

        A step sees this copy and nothing else of the project, so what it runs is what its key was computed from, even
        when somebody edits the checkout meanwhile.
        """
        files = self.code_files(relatives)
        target = home / "code" / self.code_digest(relatives)[:16]

        def copy_into(folder: Path) -> None:
            for name, path in files.items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, folder / name)

        publish_folder(target, copy_into)
        return target


def find_project() -> Project:
    """The project: `$HARNESS_BENCHMARKS`, or `./benchmarks`, or the checkout around this package, or the wheel's copy.

    Raises:
        UserError: no benchmark is anywhere.
    """
    named = os.environ.get("HARNESS_BENCHMARKS")
    places = [Path(named)] if named else list(_usual_places())
    for place in places:
        if any(place.glob("*/benchmark.yaml")):
            docker_dirs = [place.parent / "docker", PACKAGE_DIR.parent / "docker", PACKAGE_DIR / "_bundled" / "docker"]
            docker_dir = next((path for path in docker_dirs if path.is_dir()), docker_dirs[0])
            return Project(benchmarks_dir=place.resolve(), docker_dir=docker_dir.resolve())
    raise UserError(
        f"No benchmark.yaml in {' or '.join(f'{place}/*' for place in places)}; run from a checkout, or "
        "export HARNESS_BENCHMARKS=DIR with one folder per benchmark in it."
    )


def home_dir() -> Path:
    """Where assets, environments and digests are kept between runs: `$HARNESS_HOME` or `~/.cache/gear-harness`."""
    named = os.environ.get("HARNESS_HOME")
    return Path(named).expanduser().resolve() if named else Path.home() / ".cache" / "gear-harness"


def importable_from(package_parent: Path) -> str | None:
    """What PYTHONPATH must hold for the harness's own interpreter to import from `package_parent`; None: nothing."""
    installed = {Path(folder).resolve() for folder in [*site.getsitepackages(), site.getusersitepackages()]}
    return None if package_parent.resolve() in installed else str(package_parent)


def _usual_places() -> Iterator[Path]:
    yield Path("benchmarks")
    yield PACKAGE_DIR.parent / "benchmarks"
    yield PACKAGE_DIR / "_bundled" / "benchmarks"


def _walk_code(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir():
            if path.name not in _NOT_CODE_FOLDERS:
                yield from _walk_code(path)
        elif path.suffix not in _NOT_CODE_SUFFIXES and path.name not in _NOT_CODE:
            yield path
