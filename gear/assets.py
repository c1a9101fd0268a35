"""External files that a configuration names: where they are looked for, and the command that fetches them.

    DIR/vgg.pth                            a path, used as it is
    hf://owner/name/model.safetensors      a file of the Hugging Face hub, from the hub client's cache (HF_HOME)
    hf://owner/name/                       a whole repository with a config.json, likewise
    https://host/.../vgg16-397923af.pth    under its last component in PyTorch's download cache (TORCH_HOME)

The last three are also found in the harness's asset store, where `harness assets pull --preset NAME` puts the files
that assets.yaml lists. Nothing is downloaded here: a run on a node without internet fails at its start, with a sentence
that says what to copy.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from harness.contract.digest import digest_json, sha256_file
from harness.contract.errors import MissingAsset, UserError
from harness.contract.walk import walk

if TYPE_CHECKING:
    from harness.catalog.assets import Asset

_HUB, _WEB = "hf://", "https://"
_LIST = Path(__file__).with_name("assets.yaml")


def find_asset(source: str, *, purpose: str, setting: str) -> Path:
    """The local path of a named file or folder.

    Args:
        source: one of the forms above.
        purpose: what needs it, for the message: "the teacher dinov2-vit-b".
        setting: the configuration field that can name a copy: "teacher.weights".
    Raises:
        MissingAsset: it is not on this machine; the message contains the command that fetches it.
        UserError: `source` is a malformed hub address.
    """
    path = _local_path(source)
    if path.exists():
        return path
    if not source.startswith((_HUB, _WEB)):
        raise MissingAsset(f"{purpose} needs {source}, which does not exist; correct {setting}.")
    raise MissingAsset(
        f"{purpose} needs {source}, which is not on this machine; fetch it with: {fetch_commands(source)} "
        f"(or name a copy: --set {setting}=PATH)"
    )


@cache
def listed_assets() -> Mapping[str, Asset]:
    """The files that presets read, by name, as `harness assets ls` shows them.

    None in the image where steps draw: it has no asset store, and is given the files that it reads.
    """
    try:
        from harness.catalog.assets import read_assets
    except ModuleNotFoundError:
        return {}
    return read_assets([_LIST])


def listed_asset(source: str) -> Asset | None:
    """The listed asset that is at a public address of the forms above; None: it is not listed."""
    if not source.startswith(_HUB):
        return next((asset for asset in listed_assets().values() if source in asset.urls), None)
    repository, file = _hub_parts(source)
    for asset in listed_assets().values():
        if asset.hub == repository and file == ("" if asset.files else asset.hub_path or asset.file):
            return asset
    return None


def local_copy(source: str) -> Path | None:
    """Where a source is on this machine, if it is."""
    path = _local_path(source)
    return path if path.exists() else None


def files_of(source: str, names: Sequence[str]) -> list[str]:
    """What `find_asset` looks for: the files `names` of a hub repository hf://owner/name, else the folder itself."""
    return [f"{source}/{name}" for name in names] if source.startswith(_HUB) else [source]


def find_folder(source: str, names: Sequence[str], *, purpose: str, setting: str) -> Path:
    """The local folder with the files `names` of a model: `source` itself, or a hub repository's in the cache.

    Raises:
        MissingAsset: one of them is not on this machine; the message contains the command that fetches all.
    """
    try:
        found = [find_asset(file, purpose=purpose, setting=setting) for file in files_of(source, names)]
    except MissingAsset:
        if not source.startswith(_HUB):
            raise
        raise MissingAsset(
            f"{purpose} needs {source}, which is not on this machine; fetch it with: hf download "
            f"{source.removeprefix(_HUB)} {' '.join(names)} (or name a folder: --set {setting}=DIR)"
        ) from None
    return found[0].parent if source.startswith(_HUB) else found[0]


def digest_of(path: Path) -> str:
    """SHA-256 of a file's bytes, or of the names and bytes of a folder's model files.

    Model cards and the hidden folders of download tools do not count: a model fetched twice has one digest.
    """
    if path.is_file():
        return sha256_file(path)
    names = (name for name in walk(path, error=None) if Path(name).suffix in _OF_A_MODEL)
    return digest_json([[name, sha256_file(path / name)] for name in names])


_OF_A_MODEL = {".safetensors", ".bin", ".pt", ".pth", ".json", ".txt", ".model"}


def state_of(source: str) -> str:
    """A text for the user: `found`, or how to fetch it."""
    if _local_path(source).exists():
        return "found"
    public = source.startswith((_HUB, _WEB))
    return f"missing; fetch it with: {fetch_commands(source)}" if public else f"missing: {source} does not exist"


def fetch_commands(source: str) -> str:
    """What to type to get a public `source`: the harness's command where it is listed, and the plain one."""
    asset = listed_asset(source)
    plain = fetch_command(source)
    return plain if asset is None else f"harness assets pull {asset.name} (or: {plain})"


def fetch_command(source: str) -> str:
    """The command that fetches a public `source`, on a machine with internet, to where `find_asset` looks for it."""
    if source.startswith(_HUB):
        repository, file = _hub_parts(source)
        return f"hf download {repository} {file}".rstrip()
    return f"curl -fL --create-dirs -o {_cached_path(source)} {source}"


def _local_path(source: str) -> Path:
    """Where a source is on this machine, or where its own tool would put it."""
    if not source.startswith((_HUB, _WEB)):
        return expanded(source)
    cached = _cached_path(source)
    stored = None if cached.exists() else _in_asset_store(source)
    return stored if stored is not None and stored.exists() else cached


def _cached_path(source: str) -> Path:
    if source.startswith(_HUB):
        return _in_hub_cache(*_hub_parts(source))
    return _torch_cache() / source.rsplit("/", 1)[-1]


def _in_asset_store(source: str) -> Path | None:
    """Where the harness would keep it; None where it is not listed, or nobody knows a home."""
    asset = listed_asset(source)
    if asset is None:
        return None
    from harness.catalog.project import home_dir

    try:
        return home_dir() / "assets" / asset.name / asset.file
    except UserError:
        return None


def _hub_parts(source: str) -> tuple[str, str]:
    """Repository and file of `hf://owner/name/file`, where the file may lie in folders; "" for the whole of it."""
    owner, _, rest = source.removeprefix(_HUB).partition("/")
    name, _, file = rest.partition("/")
    if not (owner and name and (file or source.endswith("/"))):
        raise UserError(f"{source!r} is not a hub address; write hf://owner/name/file.")
    return f"{owner}/{name}", file


def _in_hub_cache(repository: str, file: str) -> Path:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.constants import HF_HUB_CACHE

    found = try_to_load_from_cache(repository, file or "config.json")
    if not isinstance(found, str):
        return Path(HF_HUB_CACHE) / repository / file
    return Path(found) if file else Path(found).parent


def _torch_cache() -> Path:
    """As torch.hub.get_dir(), without importing torch."""
    home = os.environ.get("TORCH_HOME") or os.environ.get("XDG_CACHE_HOME", "~/.cache") + "/torch"
    return expanded(home) / "hub" / "checkpoints"


def expanded(path: str) -> Path:
    """`path` with `~` replaced by the user's home; as it is where nobody knows one."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)
