"""Where a model of a run comes from: a path of the user's, a repository on the hub, or an asset of a preset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.contract.errors import UserError
from harness.planning.hub_cache import commit_of, inputs_by_file
from harness.planning.steps import AssetInput, FileInput, Source


@dataclass(frozen=True, kw_only=True)
class Origin:
    """One file or folder that steps of a run read."""

    said: str
    """For record, report and messages: the path, the hub id with the commit that it meant, or the asset's name."""
    path: Path | None
    """Where it is on this machine; None for an asset that is not here yet."""
    asset: str | None = None

    def inputs(self, name: str) -> Mapping[str, Source]:
        """What a step reads, so that it finds the file or folder at `{in}/<name>`."""
        if self.asset is not None:
            return {name: AssetInput(self.asset)}
        assert self.path is not None
        if self.path.is_dir() and any(entry.is_symlink() for entry in self.path.rglob("*")):
            return inputs_by_file(name, self.path)
        return {name: FileInput(self.path)}


def of_path_or_hub(given: str) -> Origin:
    """A model's file or folder: a path, a finished run's folder, a converted folder, or a hub id.

    given: a path; or hf://owner/name[/file][@revision], or owner/name, which is fetched into the hub's cache.
    Raises:
        UserError: it does not exist, is not finished, or it is not clear which of several files is the model.
        MissingAsset: the hub does not have it, or does not answer.
    """
    from gear.weights.locate import HubRepository, locate  # imports torch

    path = Path(given).expanduser()
    found = locate(path if path.exists() else given)
    if path.exists():
        where = (found if isinstance(found, Path) else path).resolve()
        return Origin(said=str(where), path=where)
    if isinstance(found, HubRepository):
        found = found.folder()
    assert isinstance(found, Path)
    return Origin(said=pinned(given, found), path=found)


def text_encoder(given: str) -> Origin:
    """A folder with a text encoder's weights, or a hub id whose files are in the hub's cache.

    Raises:
        UserError: there is no such folder, and the id is not in the cache.
    """
    from gear.assets import fetch_commands, local_copy

    path = Path(given).expanduser()
    if path.is_dir():
        return Origin(said=str(path.resolve()), path=path.resolve())
    source = f"hf://{given.removeprefix('hf://').strip('/')}/"
    if given.count("/") < 1 or path.exists() or path.is_absolute() or given.startswith("."):
        raise UserError(f"--text-encoder {given}: is not a folder; give the folder with the text encoder's weights.")
    folder = local_copy(source)
    if folder is None:
        raise UserError(
            f"--text-encoder {given}: is neither a folder nor in the hub's cache; fetch it with: "
            f"{fetch_commands(source)}, or give the folder of a copy."
        )
    return Origin(said=pinned(source, folder), path=folder)


def of_asset(name: str, path: Path | None) -> Origin:
    """An asset of a preset; path: where it is, if it is here."""
    return Origin(said=f"asset {name}", path=path, asset=name)


def pinned(given: str, path: Path) -> str:
    """A hub id with the commit that the hub's cache holds it under; elsewhere the path."""
    commit = commit_of(path)
    name = given.removeprefix("hf://").partition("@")[0].rstrip("/")
    return str(path) if commit is None else f"hf://{name}@{commit}"
