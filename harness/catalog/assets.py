"""Files from outside (weights, prompts, reference batches): the list, the local store, and what may enter it.

The list is `benchmarks/*/assets.yaml` merged; the store is `<home>/assets/<name>/<file>`. Steps never download:
`harness assets pull` does (`harness.catalog.fetch`), and `import` adds a file obtained another way.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any, Literal

from harness.contract.digest import digest_json, sha256_file
from harness.contract.errors import MissingAsset, UserError
from harness.contract.fields import Digest, Text, Within, build
from harness.contract.files import explain_disk_errors, read_json, safe_join, write_json
from harness.contract.yaml import read_yaml
from harness.store.digests import DigestMemo

_CHUNK_BYTES = 1 << 20
_SMALL_TEXT_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Asset:
    """One file from outside."""

    name: Text
    file: Text
    """Its file name in the store, which the scorer may rely on; of a folder where `files` are given."""
    urls: tuple[Text, ...] = ()
    """Where to fetch it, in order of preference."""
    hub: Text | None = None
    """Repository "owner/name" on the Hugging Face hub that has it, asked after the addresses."""
    hub_kind: Literal["model", "dataset"] = "model"
    hub_path: Text | None = None
    """Where it lies in that repository; None: under its file name."""
    files: tuple[Text, ...] = ()
    """Patterns of the repository's files that make the asset, which then is a folder; none: it is one file."""
    revision: Text | None = None
    """Branch, tag or commit of that repository; None: its main branch."""
    sha256: Digest | None = None
    """None: not known in advance; the digest of the first file that arrives is recorded and required from then on."""
    sha256_prefix: Text | None = None
    """Its first digits, where the authors publish only those; checked when the file arrives."""
    git_blob: Text | None = None
    """The file's id in git (`git hash-object FILE`), where only that is known; checked when the file arrives."""
    size: Annotated[int, Within(0)] | None = None
    """Bytes."""
    licence: Text | None = None
    commercial: Literal["yes", "no", "ask"] = "ask"
    """Whether commercial use is allowed, as far as the licence says so; "ask": read its terms."""
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
        return self.overrides.get(asset.name, self.own_path(asset))

    def own_path(self, asset: Asset) -> Path:
        """Where the asset is in this store, or would be."""
        return self.root / asset.name / asset.file

    def holds(self, asset: Asset) -> bool:
        """Whether the store has the asset, and it is the listed one."""
        path = self.own_path(asset)
        return path.exists() and self._digest(path) == self.expected_sha256(asset)

    def find(self, name: str, *, needed_by: str = "") -> Found:
        """The asset, present and with the right digest.

        Raises:
            MissingAsset: it is absent, or not the listed file; the message gives the commands to type.
        """
        asset = self._listed(name)
        path = self.path(asset)
        if name in self.overrides:
            return Found(asset=asset, path=path, digest=self._digest_of_override(asset, path), overridden=True)
        if not path.exists():
            raise MissingAsset(self._explain(asset, needed_by, "is not in the asset store"))
        digest = self._digest(path)
        expected = self.expected_sha256(asset)
        if expected is not None and digest != expected:
            raise MissingAsset(self._explain(asset, needed_by, f"has sha256 {digest[:12]}... in {path}"))
        return Found(asset=asset, path=path, digest=digest)

    def path_if_here(self, name: str) -> Path | None:
        """Where the asset is; None where it is not here, or not the listed file."""
        try:
            return self.find(name).path
        except MissingAsset:
            return None

    def missing(self, needed: Iterable[tuple[str, str]]) -> list[MissingAsset]:
        """One error for each missing asset among pairs of (asset, needed by)."""
        problems = []
        for name, needed_by in dict.fromkeys(needed):
            try:
                self.find(name, needed_by=needed_by)
            except MissingAsset as problem:
                problems.append(problem)
        return problems

    def require(self, needed: Iterable[tuple[str, str]]) -> None:
        """Check that everything among pairs of (asset, needed by) is here.

        Raises:
            MissingAsset: one error for all that is missing, with one command that fetches it.
        """
        needed = list(dict.fromkeys(needed))
        problems = self.missing(needed)
        if len(problems) > 1:
            raise MissingAsset(self._explain_several(needed))
        if problems:
            raise problems[0]

    def _explain_several(self, needed: Sequence[tuple[str, str]]) -> str:
        """A table of what is missing, and what to type."""
        users: dict[str, list[str]] = {}
        for name, needed_by in needed:
            if not self.is_here(self._listed(name)):
                users.setdefault(name, []).append(needed_by)
        assets = [self._listed(name) for name in users]
        rows = [_row(asset, ", ".join(filter(None, users[asset.name]))) for asset in assets]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        fetchable = [asset.name for asset in assets if asset.urls or asset.hub]
        by_hand = [asset for asset in assets if asset.name not in fetchable]
        text = [f"{len(assets)} assets are missing:", *(f"  {line}" for line in lines)]
        if fetchable:
            text.append(f"Fetch them:  harness assets pull {' '.join(self._shortest(fetchable, users))}")
            text.append(f"Without internet:  the same on another machine, and its {self.root} copied to here")
        text += [f"{asset.name} cannot be downloaded. {asset.note or asset.gated or ''}".rstrip() for asset in by_hand]
        if by_hand:
            text.append(f"For one run:  {' '.join(f'--asset {asset.name}=PATH' for asset in by_hand)}")
        return "\n".join(text)

    def _shortest(self, names: Sequence[str], users: Mapping[str, Sequence[str]]) -> list[str]:
        """Arguments of `harness assets pull` that name a few assets, or the benchmarks that need many."""
        if len(names) <= 3:
            return list(names)
        # What a generator needs is in no benchmark's list: it is named.
        own = [name for name in names if not set(users[name]) & set(self._listed(name).used_by)]
        needing = dict.fromkeys(users[name][0] for name in names if name not in own)
        return [*own, *(f"--benchmark {user}" for user in needing)]

    def is_here(self, asset: Asset) -> bool:
        """Whether `find` would return it."""
        return not self.missing([(asset.name, "")])

    def is_listed(self, asset: Asset) -> bool:
        """Whether the asset on the disk is the listed one; every byte is read again, unlike in `find`."""
        path = self.path(asset)
        fresh = sha256_file(path) if path.is_file() else _digest_of_folder(path)
        return fresh == self.expected_sha256(asset)

    def expected_sha256(self, asset: Asset) -> str | None:
        """The listed digest, or the one recorded when the file first arrived."""
        if asset.sha256:
            return asset.sha256
        try:
            return str(read_json(self._note(asset))["sha256"])
        except (UserError, KeyError, TypeError):
            return None

    def bring(self, asset: Asset, source: Path, *, replace: bool = False) -> Path:
        """Copy a file or folder obtained another way into the store (`harness assets import`).

        Args:
            asset: which.
            source: the file, or the folder of an asset that is one.
            replace: accept a new one where the list has no digest.
        Raises:
            MissingAsset: it is not the listed file.
        """
        wanted = "folder" if asset.files else "file"
        if not (source.is_dir() if asset.files else source.is_file()):
            raise UserError(f"{source}: is not a {wanted}; give the {wanted} of the asset '{asset.name}'.")
        path = self.own_path(asset)
        partial = path.with_name(f".{path.name}.import")
        with explain_disk_errors(path):
            partial.parent.mkdir(parents=True, exist_ok=True)
            if asset.files:
                _remove(partial)
                shutil.copytree(source, partial)
            else:
                shutil.copyfile(source, partial)
            return self.admit(asset, partial, source=str(source), replace=replace)

    def admit(self, asset: Asset, partial: Path, *, source: str, replace: bool = False) -> Path:
        """Check a file or folder that arrived in the store and give it its name; a wrong one is removed.

        A text file that differs from the listed one in the newline at its end only becomes the listed one.

        Raises:
            MissingAsset: it is not the listed file, or not the one that came first.
        """
        path = self.own_path(asset)
        if partial.is_file() and (listed := _as_listed(asset, partial)) is not None:
            partial.write_bytes(listed)
        digest = sha256_file(partial) if partial.is_file() else self.memo.of(partial)
        wrong = _mismatch(asset, partial, digest)
        if wrong:
            _remove(partial)
            raise MissingAsset(
                f"{source}: {wrong}; it was not accepted as '{asset.name}'. Fetch it again, or from another address."
            )
        first = self.expected_sha256(asset)
        if first not in (None, digest) and not replace:
            _remove(partial)
            raise MissingAsset(
                f"{source}: has sha256 {digest[:12]}..., but the first '{asset.name}' had {first[:12]}...; it was not "
                "accepted. Scores on the two are not comparable; to use the new one, add --replace."
            )
        parts = {"": partial} if partial.is_file() else _files_below(partial)
        note = {
            "sha256": digest,
            "size": sum(part.stat().st_size for part in parts.values()),
            "source": source,
            "revision": asset.revision,
            "fetched": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            **({} if "" in parts else {"files": list(parts)}),
        }
        write_json(self._note(asset), note)
        if path.is_dir():
            _remove(path)
        for part in parts.values():
            part.chmod(_readable_mode(part))
        partial.replace(path)
        return path

    def _digest(self, path: Path) -> str:
        return self.memo.file(path, ours=True) if path.is_file() else self.memo.of(path)

    def _digest_of_override(self, asset: Asset, path: Path) -> str:
        if not path.exists():
            raise MissingAsset(f"{path}: does not exist; correct --asset {asset.name}=FILE_OR_DIR.")
        if asset.sha256 and path.is_file() and _as_listed(asset, path) is not None:
            return asset.sha256
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
        if asset.urls or asset.hub:
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


def _row(asset: Asset, users: str) -> tuple[str, ...]:
    size = "size unknown" if asset.size is None else f"{asset.size:,} bytes"
    terms = f"accept its terms first: {asset.gated}" if asset.gated else ""
    return (asset.name, users, size, asset.licence or "", f"commercial use: {asset.commercial}", terms)


def _as_listed(asset: Asset, path: Path) -> bytes | None:
    """The listed content, where the file differs from it in the newline at its end only; None: it does not."""
    if not (asset.sha256 or asset.git_blob) or path.stat().st_size > _SMALL_TEXT_BYTES:
        return None
    content = path.read_bytes()
    other = content[:-1] if content.endswith(b"\n") else content + b"\n"
    return other if _is_listed(asset, other) and not _is_listed(asset, content) else None


def _is_listed(asset: Asset, content: bytes) -> bool:
    if asset.sha256:
        return hashlib.sha256(content).hexdigest() == asset.sha256
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest() == asset.git_blob


def _readable_mode(path: Path) -> int:
    """Of a file that others may read, as far as its folder lets them: some libraries write weights for their owner
    alone, and a container's user may be another one."""
    return path.stat().st_mode | (path.parent.stat().st_mode & 0o444)


def _digest_of_folder(folder: Path) -> str:
    """As `DigestMemo.of`, reading every byte."""
    return digest_json([[name, sha256_file(path)] for name, path in _files_below(folder).items()])


def _files_below(folder: Path) -> dict[str, Path]:
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


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


def _identity(asset: Asset) -> tuple[object, ...]:
    return (asset.file, asset.files, asset.hub, asset.sha256, asset.sha256_prefix, asset.git_blob, asset.revision)


def _rows(path: Path) -> list[Any]:
    rows = read_yaml(path)
    rows = rows.get("assets") if isinstance(rows, dict) else rows
    if rows is not None and not isinstance(rows, list):
        raise UserError(f"{path}: is not a list of assets; write one '- name: ...' per asset.")
    return rows or []


def hub_page(asset: Asset) -> str | None:
    """Where a person reads about the asset's repository, and accepts its terms."""
    if asset.hub is None:
        return None
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    return f"{endpoint}/{'datasets/' if asset.hub_kind == 'dataset' else ''}{asset.hub}"


@dataclass(frozen=True, kw_only=True)
class _AsWritten:
    """What a row of assets.yaml may write in short."""

    gated: bool | str | None = None
    """Whether somebody must accept terms first; or the address of the terms."""
    commercial: bool | str = "ask"
    """YAML reads yes and no as true and false."""


def _read_asset(row: Any, path: Path) -> Asset:
    where = f"{path}, asset {row['name']}" if isinstance(row, dict) and "name" in row else str(path)
    if not isinstance(row, dict):
        raise UserError(f"{where}: {row!r} is not an asset; write '- name: ...' with its fields.")
    short = build(_AsWritten, {name: row[name] for name in ("gated", "commercial") if name in row}, where)
    words = {True: "yes", False: "no"}
    commercial = words[short.commercial] if isinstance(short.commercial, bool) else short.commercial
    asset = build(Asset, {**row, "gated": None, "commercial": commercial}, where)
    safe_join(path.parent, f"{asset.name}/{asset.file}")
    gated = (hub_page(asset) or "see the licence") if short.gated is True else short.gated or None
    return replace(asset, gated=gated)
