"""Where benchmark folders, Dockerfiles and the code of the steps are: a checkout, a private folder, a wheel."""

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
from harness.store.folders import discard, publish_folder

PACKAGE_DIR = Path(__file__).resolve().parents[1]
"""The folder of the `harness` package itself."""

VARIABLE = "HARNESS_BENCHMARKS"
"""Environment variable with folders of benchmarks that are added to the shipped ones."""

_SHIPPED = (PACKAGE_DIR.parent, PACKAGE_DIR / "_bundled")
"""A checkout, or what a wheel brings: holds `benchmarks` and `docker`."""
_NOT_CODE = frozenset({"benchmark.yaml", "assets.yaml"})
_NOT_CODE_SUFFIXES = frozenset({".md", ".pyc", ".in", ".lock"})
_NOT_CODE_FOLDERS = frozenset({"__pycache__", "check", "tests", "_bundled"})


@dataclass(frozen=True, kw_only=True)
class Project:
    """The folders that steps are made from."""

    benchmark_dirs: tuple[Path, ...]
    """Each holds one folder per benchmark: those that come with the harness, and private ones."""
    docker_dirs: tuple[Path, ...] = ()
    """Each holds one folder per image."""
    package_parent: Path = PACKAGE_DIR.parent
    """Holds the package `harness` and others that steps import: a checkout, or site-packages."""

    def __post_init__(self) -> None:
        homes: dict[str, Path] = {}
        for path in self.benchmark_files():
            first = homes.setdefault(path.parent.name, path.parent)
            if first != path.parent:
                raise UserError(
                    f"There are two benchmarks called '{path.parent.name}': {first} and {path.parent}; rename one of "
                    "the folders, and the id in its benchmark.yaml."
                )

    def benchmark_files(self) -> list[Path]:
        """Every benchmark.yaml, sorted within its folder of benchmarks."""
        return [path for folder in self.benchmark_dirs for path in sorted(folder.glob("*/benchmark.yaml"))]

    def asset_files(self) -> list[Path]:
        """Every assets.yaml beside a benchmark, sorted likewise."""
        return [path for folder in self.benchmark_dirs for path in sorted(folder.glob("*/assets.yaml"))]

    def path(self, relative: str) -> Path:
        """The place of a project-relative path such as `benchmarks/adm/scorer.py` or `harness/contract`.

        Raises:
            UserError: the path leaves the project, or nothing is there.
        """
        head, _, rest = relative.partition("/")
        scripts = (self.package_parent / "scripts", PACKAGE_DIR / "_bundled" / "scripts")
        own = {"benchmarks": self.benchmark_dirs, "docker": self.docker_dirs, "scripts": scripts}
        roots = own.get(head, (self.package_parent / head,))
        places = [safe_join(root, rest) if rest else root for root in roots]
        found = next((place for place in places if place.exists()), places[0])
        if not found.exists():
            raise UserError(f"{found}: does not exist, but is needed as '{relative}'; check the checkout or the wheel.")
        return found

    def code_files(self, relatives: Iterable[str]) -> dict[str, Path]:
        """Project-relative name -> file, for every file of code under the given files and folders, sorted.

        A file named explicitly is always included. Of a folder, documents (`*.md`), tests, gold checks, and what has a
        key of its own (`benchmark.yaml`, locks) are left out: not hashed, not visible to a step, not in an image.
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

    def staged(self, relatives: Sequence[str], home: Path) -> Path:
        """Where `stage_code` puts the code."""
        return home / "code" / self.code_digest(relatives)[:16]

    def stage_code(self, relatives: Sequence[str], home: Path) -> Path:
        """Copy the code under `relatives` to a folder of `home` named by its digest, once, and return the folder.

        A step sees this copy and nothing else of the project, so what it runs is what its key was computed from, even
        when somebody edits the checkout meanwhile.
        """
        files = self.code_files(relatives)
        digest, target = self.code_digest(relatives), self.staged(relatives, home)
        if target.exists() and not _holds(target, files, digest):  # edited, or cut short
            discard(target)

        def copy_into(folder: Path) -> None:
            for name, path in files.items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, folder / name)

        publish_folder(target, copy_into)
        return target


def find_project() -> Project:
    """The benchmarks that come with the harness, and those in the folders that `$HARNESS_BENCHMARKS` names.

    `HARNESS_BENCHMARKS=DIR[:DIR...]` adds folders with one folder per benchmark in each; a `docker` folder beside such
    a DIR holds the images of its benchmarks, if any needs one of its own.

    Raises:
        UserError: a named folder holds no benchmark, or two benchmarks have the same name.
    """
    added = [Path(name).expanduser().resolve() for name in os.environ.get(VARIABLE, "").split(os.pathsep) if name]
    for folder in added:
        if not any(folder.glob("*/benchmark.yaml")):
            raise UserError(
                f"{folder}: holds no folder with a benchmark.yaml; correct {VARIABLE}, or make one: "
                f"harness new benchmark NAME --in {folder}"
            )
    shipped = next((root for root in _SHIPPED if any(root.glob("benchmarks/*/benchmark.yaml"))), None)
    if shipped is None and not added:
        raise UserError(
            f"No benchmark is installed with the harness ({' or '.join(str(root) for root in _SHIPPED)}); install it "
            f"again, or export {VARIABLE}=DIR with one folder per benchmark in it."
        )
    roots = [] if shipped is None else [shipped / "benchmarks"]
    images = [*(folder.parent / "docker" for folder in added), *([] if shipped is None else [shipped / "docker"])]
    distinct = dict.fromkeys([*roots, *added])
    return Project(benchmark_dirs=tuple(distinct), docker_dirs=tuple(path for path in images if path.is_dir()))


def home_dir() -> Path:
    """Where assets, environments and digests are kept between runs: `$HARNESS_HOME` or `~/.cache/gear-harness`.

    Raises:
        UserError: neither is known: no HOME, and no entry for the user in the system's list.
    """
    named = os.environ.get("HARNESS_HOME")
    try:
        home = Path(named).expanduser().resolve() if named else Path.home() / ".cache" / "gear-harness"
        home.exists()
        return home
    except PermissionError as error:  # often the HOME of root, for another user in a container
        raise UserError(
            f"{error.filename}: this user may not look into it; export HARNESS_HOME=/a/folder to keep assets and "
            "environments in"
        ) from error
    except RuntimeError as error:
        raise UserError(
            f"{named or 'HOME'}: this user has no home directory to keep assets and environments in; "
            "export HARNESS_HOME=/a/folder"
        ) from error


def importable_from(package_parent: Path) -> str | None:
    """PYTHONPATH for the harness's own interpreter to import from `package_parent`; None where it needs none."""
    installed = {Path(folder).resolve() for folder in [*site.getsitepackages(), site.getusersitepackages()]}
    return None if package_parent.resolve() in installed else str(package_parent)


def _holds(folder: Path, names: Iterable[str], digest: str) -> bool:
    try:
        return digest_json([[name, sha256_file(folder / name)] for name in names]) == digest
    except OSError:
        return False


def _walk_code(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir():
            if path.name not in _NOT_CODE_FOLDERS:
                yield from _walk_code(path)
        elif path.suffix not in _NOT_CODE_SUFFIXES and path.name not in _NOT_CODE:
            yield path
