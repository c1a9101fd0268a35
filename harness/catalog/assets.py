"""Files from outside (weights, prompts, reference batches): the list, the local store, and how they get there.

The list is `benchmarks/*/assets.yaml` merged; the store is `<home>/assets/<name>/<file>`. Steps never download:
`harness assets pull` does, on a machine with internet, and `import` adds a file obtained another way.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any

from harness.contract.digest import digest_json, sha256_file
from harness.contract.errors import EnvironmentFailure, MissingAsset, UserError
from harness.contract.fields import Digest, Text, Within, build
from harness.contract.files import explain_disk_errors, read_json, safe_join, write_json
from harness.contract.yaml import read_yaml
from harness.store.digests import DigestMemo

Progress = Callable[[int, int | None], None]
"""Called with (bytes so far, total bytes or None) while a file is being fetched."""

_CHUNK_BYTES = 1 << 20
_TIMEOUT_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Asset:
    """One file from outside."""

    name: Text
    file: Text
    """Its file name in the store, which the scorer may rely on."""
    urls: tuple[Text, ...] = ()
    """Where to fetch it, in order of preference."""
    revision: Text | None = None
    sha256: Digest | None = None
    """None: not known in advance; the digest of the first file that arrives is recorded and required from then on."""
    sha256_prefix: Text | None = None
    """Its first digits, where the authors publish only those; checked when the file arrives."""
    git_blob: Text | None = None
    """The file's id in git (`git hash-object FILE`), where only that is known; checked when the file arrives."""
    size: Annotated[int, Within(0)] | None = None
    """Bytes."""
    licence: Text | None = None
    gated: str | None = None
    """The terms to accept first, and where; None: anybody may fetch it."""
    used_by: tuple[Text, ...] = ()
    note: Text | None = None
    """What else to know, such as how to make a file that cannot be downloaded."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """An asset as it lies on this machine."""

    asset: Asset
    path: Path
    """A file, or a folder of the user's own (`--asset name=DIR`)."""
    digest: str
    overridden: bool = False


class AssetStore:
    """Assets of one machine.

    Args:
        root: the store, `<home>/assets`.
        listed: every asset there is, by name.
        memo: remembers digests.
        overrides: files or folders of the user's own that take an asset's place, by its name.
    """

    def __init__(
        self, root: Path, listed: Mapping[str, Asset], memo: DigestMemo, overrides: Mapping[str, Path] | None = None
    ) -> None:
        self.root = root
        self.listed = listed
        self.memo = memo
        self.overrides = dict(overrides or {})

    def path(self, asset: Asset) -> Path:
        """Where the asset is, or would be."""
        return self.overrides.get(asset.name, self.root / asset.name / asset.file)

    def find(self, name: str, *, needed_by: str = "") -> Found:
        """The asset, present and with the right digest.

        Raises:
            MissingAsset: it is absent, or not the listed file; the message gives the commands to type.
        """
        asset = self._listed(name)
        path = self.path(asset)
        if name in self.overrides:
            return Found(asset=asset, path=path, digest=self._digest_of_override(asset, path), overridden=True)
        if not path.is_file():
            raise MissingAsset(self._explain(asset, needed_by, "is not in the asset store"))
        digest = self.memo.file(path, ours=True)
        expected = self.expected_sha256(asset)
        if expected is not None and digest != expected:
            raise MissingAsset(self._explain(asset, needed_by, f"has sha256 {digest[:12]}... in {path}"))
        return Found(asset=asset, path=path, digest=digest)

    def missing(self, needed: Iterable[tuple[str, str]]) -> list[MissingAsset]:
        """One error for each missing asset among pairs of (asset, needed by)."""
        problems = []
        for name, needed_by in dict.fromkeys(needed):
            try:
                self.find(name, needed_by=needed_by)
            except MissingAsset as problem:
                problems.append(problem)
        return problems

    def expected_sha256(self, asset: Asset) -> str | None:
        """The listed digest, or the one recorded when the file first arrived."""
        if asset.sha256:
            return asset.sha256
        try:
            return str(read_json(self._note(asset))["sha256"])
        except (UserError, KeyError, TypeError):
            return None

    def pull(self, asset: Asset, progress: Progress = lambda done, total: None, *, replace: bool = False) -> Path:
        """Fetch an asset unless it is there, continuing a download that was cut off.

        Args:
            asset: which.
            progress: called as bytes arrive.
            replace: fetch it even if it is there, and accept a new file where the list has no digest.
        Raises:
            MissingAsset: no address, or the fetched file is not the listed one.
            EnvironmentFailure: no address answered.
        """
        path = self.root / asset.name / asset.file
        if not replace and path.is_file() and self.memo.file(path, ours=True) == self.expected_sha256(asset):
            return path
        if not asset.urls:
            raise MissingAsset(
                f"The asset '{asset.name}' has no address to fetch it from. {asset.note or asset.gated or ''}\n  "
                f"Get the file yourself and type: harness assets import {asset.name} FILE"
            )
        with explain_disk_errors(path, kept="the partial download is kept"):
            path.parent.mkdir(parents=True, exist_ok=True)
            url, partial = _fetch_any(asset, path, progress)
            return self._admit(asset, partial, path, source=url, replace=replace)

    def bring(self, asset: Asset, source: Path, *, replace: bool = False) -> Path:
        """Copy a file obtained another way into the store (`harness assets import`); `replace` as in `pull`.

        Raises:
            MissingAsset: it is not the listed file.
        """
        if not source.is_file():
            raise UserError(f"{source}: is not a file; give the file of the asset '{asset.name}'.")
        path = self.root / asset.name / asset.file
        partial = path.with_name(f".{path.name}.import")
        with explain_disk_errors(path):
            partial.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, partial)
            return self._admit(asset, partial, path, source=str(source), replace=replace)

    def _admit(self, asset: Asset, partial: Path, path: Path, *, source: str, replace: bool) -> Path:
        """Check a file that arrived and give it its name; a wrong one is removed."""
        digest = sha256_file(partial)
        wrong = _mismatch(asset, partial, digest)
        if wrong:
            partial.unlink()
            raise MissingAsset(
                f"{source}: {wrong}; it was not accepted as '{asset.name}'. Fetch it again, or from another address."
            )
        first = self.expected_sha256(asset)
        if first not in (None, digest) and not replace:
            partial.unlink()
            raise MissingAsset(
                f"{source}: has sha256 {digest[:12]}..., but the first '{asset.name}' had {first[:12]}...; it was not "
                "accepted. Scores on the two are not comparable; to use the new one, add --replace."
            )
        note = {
            "sha256": digest,
            "size": partial.stat().st_size,
            "source": source,
            "revision": asset.revision,
            "fetched": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }
        write_json(self._note(asset), note)
        partial.replace(path)
        return path

    def _digest_of_override(self, asset: Asset, path: Path) -> str:
        if not path.exists():
            raise MissingAsset(f"{path}: does not exist; correct --asset {asset.name}=FILE_OR_DIR.")
        return self.memo.of(path)

    def _listed(self, name: str) -> Asset:
        if name not in self.listed:
            raise UserError(f"No assets.yaml lists '{name}'; add it to the assets.yaml of the benchmark that needs it.")
        return self.listed[name]

    def _note(self, asset: Asset) -> Path:
        return self.root / asset.name / f".{asset.file}.json"

    def _explain(self, asset: Asset, needed_by: str, problem: str) -> str:
        wanted = self.expected_sha256(asset)
        digest = f" (sha256 {wanted[:12]}...)" if wanted else ""
        lines = [f"{needed_by or 'This'} needs '{asset.name}'{digest}, which {problem}."]
        if asset.gated:
            lines.append(f"  First accept its terms:  {asset.gated}")
        if asset.urls:
            lines.append(
                f"  Fetch it:  harness assets pull {asset.name}      "
                f"Without internet:  harness assets import {asset.name} FILE"
            )
        else:
            lines.append(f"  It cannot be downloaded. {asset.note or ''}".rstrip())
            lines.append(
                f"  For one run:  --asset {asset.name}=PATH      "
                f"Permanently, if it is one file:  harness assets import {asset.name} FILE"
            )
        return "\n".join(lines)


def git_blob_id(path: Path) -> str:
    """What `git hash-object` prints for a file: SHA-1 over "blob <size>\\0" and the bytes."""
    state = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as handle:
        while chunk := handle.read(_CHUNK_BYTES):
            state.update(chunk)
    return state.hexdigest()


def _mismatch(asset: Asset, path: Path, digest: str) -> str:
    """Why a file is not the listed one; "" when everything known about it matches."""
    if asset.sha256 and digest != asset.sha256:
        return f"has sha256 {digest[:12]}..., listed is {asset.sha256[:12]}..."
    if asset.sha256_prefix and not digest.startswith(asset.sha256_prefix):
        return f"has sha256 {digest[:12]}..., listed is one that begins with {asset.sha256_prefix}"
    if asset.git_blob and git_blob_id(path) != asset.git_blob:
        return f"has the git id {git_blob_id(path)[:12]}..., listed is {asset.git_blob[:12]}..."
    return ""


def read_assets(files: Iterable[Path]) -> dict[str, Asset]:
    """Merge assets.yaml files; the same name may occur in several as long as they mean the same file.

    Raises:
        UserError: naming the file and the field, or the two files that disagree.
    """
    merged: dict[str, tuple[Asset, Path]] = {}
    for path in files:
        for row in _rows(path):
            asset = _read_asset(row, path)
            known, where = merged.get(asset.name, (asset, path))
            if _identity(known) != _identity(asset):
                raise UserError(f"{path}: '{asset.name}' is a different file in {where}; rename one of them.")
            users = tuple(dict.fromkeys([*known.used_by, *asset.used_by]))
            merged[asset.name] = (Asset(**{**vars(asset), "used_by": users}), path)
    return {name: asset for name, (asset, _) in sorted(merged.items())}


def _identity(asset: Asset) -> tuple[str | None, ...]:
    return (asset.file, asset.sha256, asset.sha256_prefix, asset.git_blob, asset.revision)


def _rows(path: Path) -> list[Any]:
    rows = read_yaml(path)
    rows = rows.get("assets") if isinstance(rows, dict) else rows
    if rows is not None and not isinstance(rows, list):
        raise UserError(f"{path}: is not a list of assets; write one '- name: ...' per asset.")
    return rows or []


@dataclass(frozen=True, kw_only=True)
class _Source:
    """What a row of assets.yaml may also say about where its file comes from."""

    hub: Text | None = None
    """Repository of the model hub that has it, "owner/name": the last of its addresses."""
    gated: bool | str | None = None
    """Whether somebody must accept terms first; or the address of the terms."""


def _read_asset(row: Any, path: Path) -> Asset:
    where = f"{path}, asset {row['name']}" if isinstance(row, dict) and "name" in row else str(path)
    if not isinstance(row, dict):
        raise UserError(f"{where}: {row!r} is not an asset; write '- name: ...' with its fields.")
    source = build(_Source, {name: row[name] for name in ("hub", "gated") if name in row}, where)
    asset = build(Asset, {name: value for name, value in row.items() if name not in ("hub", "gated")}, where)
    safe_join(path.parent, f"{asset.name}/{asset.file}")
    hub = () if source.hub is None else (_hub_url(source.hub, asset.revision, asset.file),)
    gated = (source.hub or "see the licence") if source.gated is True else source.gated or None
    return replace(asset, urls=(*asset.urls, *hub), gated=gated)


def _hub_url(hub: str, revision: str | None, file: str) -> str:
    return f"{_hub_endpoint()}/{hub}/resolve/{revision or 'main'}/{file}"


def _hub_endpoint() -> str:
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


# --- downloading -----------------------------------------------------------------------------------------------------


def _fetch_any(asset: Asset, path: Path, progress: Progress) -> tuple[str, Path]:
    """The address that answered, and the file that came from it."""
    failures = []
    for url in asset.urls:
        # A partial download from one address is never continued from another.
        partial = path.with_name(f".{path.name}.{digest_json(url)[:8]}.download")
        if not url.startswith("https://"):
            raise UserError(
                f"The asset '{asset.name}' is listed at {url}, which is not https; correct its assets.yaml."
            )
        try:
            _fetch(url, partial, progress)
        except (OSError, http.client.HTTPException) as error:
            failures.append(f"{url}: {error}")
        else:
            return url, partial
    raise EnvironmentFailure(
        f"'{asset.name}' could not be fetched ({'; '.join(failures)}); the partial download is kept. Try again, or "
        f"fetch it on a machine with internet, and then: harness assets import {asset.name} FILE"
    )


def _fetch(url: str, partial: Path, progress: Progress) -> None:
    """Fetch `url` into `partial`, continuing where it ends, if the server supports that."""
    have = partial.stat().st_size if partial.exists() else 0
    request = _request(url, have)
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # asked for bytes after the last one: it was complete already
            return
        raise
    with response:
        continues = response.status == 206
        have = have if continues else 0
        length = response.headers.get("Content-Length")
        total = have + int(length) if length and length.isdigit() else None
        with partial.open("ab" if continues else "wb") as handle:
            while chunk := response.read(_CHUNK_BYTES):
                handle.write(chunk)
                have += len(chunk)
                progress(have, total)
            handle.flush()
            os.fsync(handle.fileno())
    if total is not None and have < total:
        raise OSError(f"the connection ended after {have} of {total} bytes")


def _request(url: str, have: int) -> urllib.request.Request:
    request = urllib.request.Request(url, headers={"User-Agent": "gear-harness"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    token = os.environ.get("HF_TOKEN")
    if token and url.startswith(f"{_hub_endpoint()}/"):
        # Not on redirects: the hub redirects to other hosts, which must not see the token.
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    return request
