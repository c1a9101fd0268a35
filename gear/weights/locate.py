"""Find the files that a user's SOURCE means: a file, a folder, or a repository on the hub."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from harness.contract.errors import MissingAsset, UserError
from harness.contract.walk import files_in

WEIGHT_SUFFIXES = (".pt", ".pth", ".ckpt", ".safetensors", ".bin")
RUN_FILE = "model.pt"
"""What `gear train` writes when its last step is done."""
CARD_FILE = "config.json"

_HUB_ID = re.compile(r"(?:hf://)?(?P<repo>[\w.-]+/[\w.-]+)(?:/(?P<file>[^@]+))?(?:@(?P<revision>[^@]+))?")


class WeightsFolder(ABC):
    """A folder of files by name; those on the hub are fetched when they are used."""

    name: str
    """How the user wrote it."""

    @abstractmethod
    def names(self) -> list[str]:
        """The files there are, sorted."""

    @abstractmethod
    def path(self, name: str) -> Path:
        """A local file with that content."""


@dataclass(frozen=True)
class LocalFolder(WeightsFolder):
    name: str
    folder: Path

    def names(self) -> list[str]:
        return [path.name for path in files_in(self.folder, "", error=None)]

    def path(self, name: str) -> Path:
        return self.folder / name


@dataclass(frozen=True)
class HubRepository(WeightsFolder):
    """A model repository on the hub, or its part in the local cache when offline."""

    name: str
    repo: str
    revision: str | None

    def names(self) -> list[str]:
        from huggingface_hub import HfApi, snapshot_download
        from huggingface_hub.errors import HFValidationError

        try:
            return sorted(HfApi().list_repo_files(self.repo, revision=self.revision))
        except HFValidationError as error:
            raise UserError(f"{self.name} is neither an existing path nor a name on the hub ({error}).") from None
        except _no_answer() as error:
            reason = _first_line(error)
        try:
            folder = Path(snapshot_download(self.repo, revision=self.revision, local_files_only=True))
        except OSError:
            raise self._missing(reason) from None
        return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())

    def path(self, name: str) -> Path:
        from huggingface_hub import hf_hub_download

        try:
            return Path(hf_hub_download(self.repo, name, revision=self.revision))
        except _no_answer() as error:
            raise self._missing(_first_line(error)) from None

    def folder(self) -> Path:
        """All of it, in the hub's cache."""
        from huggingface_hub import snapshot_download

        try:
            return Path(snapshot_download(self.repo, revision=self.revision))
        except _no_answer() as error:
            raise self._missing(_first_line(error)) from None

    def _missing(self, reason: str) -> MissingAsset:
        revision = f" --revision {self.revision}" if self.revision else ""
        return MissingAsset(
            f"{self.name} is not a path here, and the hub did not provide it ({reason}); check the name, or fetch it "
            f"on a machine with internet: hf download {self.repo}{revision}"
        )


def locate(source: str | Path, revision: str | None = None) -> Path | WeightsFolder:
    """A weights file, or the folder whose files make a model.

    source: a path that exists; else `org/name`, or `hf://org/name[/file][@revision]`. If a folder `org` exists here,
    `org/name` is taken for a path and the hub is not asked. A folder or repository without a model card of ours stands
    for its `model.pt`, or its only weights file.

    Raises UserError when it does not exist or has several weights files; MissingAsset when the hub does not answer.
    """
    path = Path(source)
    if path.is_file():
        return path
    if path.is_dir():
        return _only_file(LocalFolder(str(source), path))
    match = _HUB_ID.fullmatch(str(source))
    hub = str(source).startswith("hf://")
    looks_local = not hub and (path.suffix in WEIGHT_SUFFIXES or path.parent.is_dir())
    if match is None or looks_local or (not hub and match["file"]):
        raise UserError(f"{source} does not exist; give a file, a folder, or a hub id (hf://org/name).")
    repository = HubRepository(str(source), match["repo"], revision or match["revision"])
    return repository.path(match["file"]) if match["file"] else _only_file(repository)


def _only_file(folder: WeightsFolder) -> Path | WeightsFolder:
    names = folder.names()
    weights = [name for name in names if name.endswith(WEIGHT_SUFFIXES)]
    if CARD_FILE in names and weights and all(name.endswith(".safetensors") for name in weights):
        return folder
    if RUN_FILE in names or len(weights) == 1:
        return folder.path(RUN_FILE if RUN_FILE in names else weights[0])
    if "log.jsonl" in names or not weights:
        raise UserError(
            f"{folder.name} holds no {RUN_FILE}: its training is not finished (run the same `gear train` again), "
            "or it is not the folder of a model."
        )
    raise UserError(
        f"{folder.name} holds {len(weights)} weights files ({', '.join(weights[:8])}); "
        f"name one, such as {folder.name}/{weights[0]}"
    )


def _no_answer() -> tuple[type[Exception], ...]:
    """What the hub client raises when it is offline, the hub is unreachable, or the file is missing or not accessible.

    Connection errors come straight from its HTTP library, which differs between versions; the client's own error has
    that library's as a base.
    """
    from huggingface_hub.errors import HfHubHTTPError

    return (OSError, *(base for base in HfHubHTTPError.__mro__ if base.__name__ == "HTTPError"))


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
