"""Fetch assets: plain addresses with `requests`, the Hugging Face hub with its own client, and mirrors.

A mirror is a copy of another machine's asset store: `<mirror>/<name>/<file>`, on a disk that is mounted here or behind
an address. What arrives is checked by `AssetStore` in the same way, wherever it came from.
"""

from __future__ import annotations

import io
import os
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from harness.catalog.assets import Asset, AssetStore, hub_page
from harness.contract.digest import digest_json
from harness.contract.errors import EnvironmentFailure, MissingAsset, UserError
from harness.contract.files import explain_disk_errors, read_json, safe_join

if TYPE_CHECKING:
    import requests

Progress = Callable[[int, int | None], None]
"""Called with (bytes so far, total bytes or None) while a file is being fetched."""

_CHUNK_BYTES = 1 << 20
_TIMEOUT_S = 60.0
_LOOK_UP_S = 10.0
_TRIES = 4
_GONE = (404, 410)
_REFUSED = (401, 403)
_BUSY = (408, 425, 429, 500, 502, 503, 504)


def quiet(done: int, total: int | None) -> None:
    """Progress that nobody watches."""


class _Gone(Exception):
    """The server answers, and has no such file."""


class _Refused(Exception):
    """The server answers, and wants terms to be accepted or a token."""


@dataclass(frozen=True)
class Fetcher:
    """Fetches assets into a store.

    Args:
        store: where they go.
        mirror: a copy of another machine's asset store, as a folder or an address, asked before everybody else.
    """

    store: AssetStore
    mirror: str | None = None

    def pull(self, asset: Asset, progress: Progress = quiet, *, replace: bool = False) -> Path:
        """Fetch an asset unless it is there, continuing a download that was cut off.

        Args:
            asset: which.
            progress: called as bytes arrive.
            replace: fetch it even if it is there, and accept a new file where the list has no digest.
        Raises:
            MissingAsset: no address has it, its terms must be accepted first, or what arrived is not the listed file.
            EnvironmentFailure: no address answered.
        """
        if not replace and self.store.holds(asset):
            return self.store.own_path(asset)
        sources = list(self._sources(asset))
        if not sources:
            raise MissingAsset(
                f"The asset '{asset.name}' has no address to fetch it from. {asset.note or asset.gated or ''}\n  "
                f"Get it yourself and type: harness assets import {asset.name} FILE"
            )
        with explain_disk_errors(self.store.own_path(asset), kept="the partial download is kept"):
            source, arrived = self._first_that_answers(asset, sources, progress)
            return self.store.admit(asset, arrived, source=source, replace=replace)

    def size(self, asset: Asset) -> int | None:
        """Bytes to fetch: the listed size, else what the first address says; None where neither tells."""
        if asset.size is not None:
            return asset.size
        for source in self._sources(asset):
            try:
                size = source.size()
            except Exception:  # a size is a courtesy: whatever fails here is reported when the file is fetched
                continue
            if size is not None:
                return size
        return None

    def _sources(self, asset: Asset) -> Iterator[_Source]:
        if self.mirror is not None:
            is_address = self.mirror.startswith(("https://", "http://"))
            yield _MirrorAddress(asset, self.mirror) if is_address else _MirrorFolder(asset, Path(self.mirror))
        for url in asset.urls:
            if not url.startswith("https://"):
                raise UserError(
                    f"The asset '{asset.name}' is listed at {url}, which is not https; correct its assets.yaml."
                )
            yield _Address(asset, url)
        if asset.hub:
            yield _Hub(asset, asset.hub)

    def _first_that_answers(self, asset: Asset, sources: list[_Source], progress: Progress) -> tuple[str, Path]:
        """The name of the source that had the asset, and the file or folder that came from it."""
        gone, refused, unreachable = [], [], []
        for source in sources:
            # A partial download from one source is never continued from another.
            place = self.store.own_path(asset)
            partial = place.with_name(f".{place.name}.{digest_json(source.name)[:8]}.download")
            partial.parent.mkdir(parents=True, exist_ok=True)
            try:
                source.fetch(partial, progress)
            except _Gone as error:
                gone.append(f"{source.name}: {error}")
            except _Refused as error:
                refused.append(f"{source.name}: {error}")
            except OSError as error:  # those of requests and of the hub's client are OSErrors
                if _is_of_the_disk(error):
                    raise
                unreachable.append(f"{source.name}: {_first_line(error)}")
            else:
                return source.name, partial
        raise _explain(asset, gone, refused, unreachable)


def _explain(
    asset: Asset, gone: list[str], refused: list[str], unreachable: list[str]
) -> MissingAsset | EnvironmentFailure:
    """One error for all sources that failed, with what helps: terms, a corrected address, or another try."""
    by_hand = f"fetch it on another machine, and then: harness assets import {asset.name} FILE"
    if refused:
        page = asset.gated or hub_page(asset) or "its page"
        return MissingAsset(
            f"'{asset.name}' is not given to everybody ({'; '.join(refused)}). Accept its terms at {page}, put a token "
            f"into HF_TOKEN (or: hf auth login), and fetch it again; or {by_hand}"
        )
    if unreachable:
        also = f"; elsewhere it is no longer there ({'; '.join(gone)})" if gone else ""
        return EnvironmentFailure(
            f"'{asset.name}' could not be fetched, the network failed ({'; '.join(unreachable)}){also}; the partial "
            f"download is kept. Try again, or {by_hand}"
        )
    return MissingAsset(
        f"'{asset.name}' is no longer at its address ({'; '.join(gone)}). {asset.note or ''} Take it from elsewhere "
        f"(harness assets import {asset.name} FILE; it is checked), and tell us, so that the list is corrected."
    )


# --- where a file may come from ---------------------------------------------------------------------------------------


class _Source(ABC):
    """One place that may have an asset."""

    name: str

    @abstractmethod
    def size(self) -> int | None:
        """Bytes, or None if it does not say."""

    @abstractmethod
    def fetch(self, partial: Path, progress: Progress) -> None:
        """Fetch the asset into `partial`, continuing what lies there.

        Raises:
            _Gone, _Refused: the place answers, but not with the asset.
            OSError: it does not answer.
        """


class _Address(_Source):
    """A file behind an address."""

    def __init__(self, asset: Asset, url: str) -> None:
        self.asset, self.name = asset, url

    def size(self) -> int | None:
        import requests

        with requests.head(self.name, allow_redirects=True, timeout=_LOOK_UP_S, headers=_HEADERS) as answer:
            return _length(answer) if answer.ok else None

    def fetch(self, partial: Path, progress: Progress) -> None:
        download(self.name, partial, progress)


class _MirrorAddress(_Source):
    """`<mirror>/<name>/<file>`; a folder's files are listed in the note that the store keeps beside it."""

    def __init__(self, asset: Asset, mirror: str) -> None:
        self.asset = asset
        self.folder = f"{mirror.rstrip('/')}/{quote(asset.name)}"
        self.name = f"{self.folder}/{quote(asset.file)}"

    def size(self) -> int | None:
        return _Address(self.asset, self.name).size() if not self.asset.files else None

    def fetch(self, partial: Path, progress: Progress) -> None:
        if not self.asset.files:
            return download(self.name, partial, progress)
        note = partial.with_name(f"{partial.name}.json")
        download(f"{self.folder}/.{quote(self.asset.file)}.json", note, quiet)
        names = list(read_json(note).get("files", ()))
        note.unlink()
        for name in names:
            place = safe_join(partial, str(name))
            place.parent.mkdir(parents=True, exist_ok=True)
            download(f"{self.name}/{quote(str(name))}", place, progress)


class _MirrorFolder(_Source):
    """The same on a disk that is mounted here."""

    def __init__(self, asset: Asset, mirror: Path) -> None:
        self.path = mirror / asset.name / asset.file
        self.name = str(self.path)

    def size(self) -> int | None:
        if not self.path.exists():
            return None
        files = self.path.rglob("*") if self.path.is_dir() else [self.path]
        return sum(path.stat().st_size for path in files if path.is_file())

    def fetch(self, partial: Path, progress: Progress) -> None:
        if not self.path.exists():
            raise _Gone("is not there")
        if self.path.is_dir():
            shutil.copytree(self.path, partial, dirs_exist_ok=True)
        else:
            shutil.copyfile(self.path, partial)
        size = self.size() or 0
        progress(size, size)


class _Hub(_Source):
    """A file, or a folder of files, of a repository on the Hugging Face hub or its mirror (HF_ENDPOINT)."""

    def __init__(self, asset: Asset, repository: str) -> None:
        self.asset = asset
        self.where: dict[str, Any] = {
            "repo_id": repository,
            "repo_type": asset.hub_kind,
            "revision": asset.revision,
            "endpoint": os.environ.get("HF_ENDPOINT") or None,
        }
        self.name = f"hf://{repository}/{'' if asset.files else asset.hub_path or asset.file}"

    def size(self) -> int | None:
        from huggingface_hub import hf_hub_download, snapshot_download

        if self.asset.files:
            found: Any = snapshot_download(**self.where, allow_patterns=list(self.asset.files), dry_run=True)
        else:
            found = [hf_hub_download(**self.where, filename=self.asset.hub_path or self.asset.file, dry_run=True)]
        return sum(file.file_size for file in found)

    def fetch(self, partial: Path, progress: Progress) -> None:
        from huggingface_hub import hf_hub_download, snapshot_download

        # The client continues its downloads in the folder it is given, and keeps notes of its own in `.cache` there.
        staging = partial.with_name(f"{partial.name}.hub")
        with _hub_errors():
            if self.asset.files:
                patterns = list(self.asset.files)
                snapshot_download(**self.where, local_dir=staging, allow_patterns=patterns, tqdm_class=_bar(progress))
            else:
                file = self.asset.hub_path or self.asset.file
                hf_hub_download(**self.where, filename=file, local_dir=staging, tqdm_class=_bar(progress))
        shutil.rmtree(staging / ".cache", ignore_errors=True)
        if self.asset.files:
            if not any(staging.rglob("*")):
                raise _Gone(f"holds none of {', '.join(self.asset.files)}")
            shutil.rmtree(partial, ignore_errors=True)
            staging.replace(partial)
        else:
            (staging / (self.asset.hub_path or self.asset.file)).replace(partial)
            shutil.rmtree(staging)


@contextmanager
def _hub_errors() -> Iterator[None]:
    """The hub client's errors as those of the other sources."""
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        yield
    except LocalEntryNotFoundError as error:  # the client's word for "the hub did not answer"
        raise ConnectionError(_first_line(error.__cause__ or error)) from error
    except GatedRepoError as error:
        raise _Refused(_first_line(error)) from error
    except (EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise _Gone(_first_line(error)) from error


def _bar(progress: Progress) -> Any:
    """A progress bar of the kind that the hub's client feeds, which shows nothing and passes the counts on."""
    from tqdm import tqdm

    class Bar(tqdm):
        def __init__(self, *args: Any, **settings: Any) -> None:
            settings.pop("name", None)
            self.counts_bytes = settings.get("unit") == "B"
            super().__init__(*args, **{**settings, "disable": False, "file": io.StringIO()})

        def update(self, n: float | None = 1) -> bool | None:
            shown = super().update(n)
            if self.counts_bytes:
                progress(int(self.n), int(self.total) if self.total else None)
            return shown

    return Bar


# --- plain addresses --------------------------------------------------------------------------------------------------

_HEADERS = {"User-Agent": "gear-harness", "Accept-Encoding": "identity"}


def download(url: str, partial: Path, progress: Progress = quiet) -> None:
    """Fetch `url` into `partial`, continuing where it ends if the server can; a server that is busy is asked again.

    Raises:
        _Gone, _Refused: as `_Source.fetch`.
        OSError: no answer, or the connection ended early; what arrived is kept.
    """
    for tries_left in reversed(range(_TRIES)):
        try:
            return _attempt(url, partial, progress)
        except OSError as error:
            if _is_of_the_disk(error) or not tries_left or isinstance(error, _Final):
                raise
            time.sleep(min(8.0, 0.5 * 2 ** (_TRIES - tries_left)))


def _is_of_the_disk(error: OSError) -> bool:
    """Whether an error is one of this machine's files, and not of the network."""
    return error.errno is not None and error.filename is not None


class _Final(OSError):
    """An answer that stays the same however often one asks."""


def _attempt(url: str, partial: Path, progress: Progress) -> None:
    import requests

    have = partial.stat().st_size if partial.exists() else 0
    headers = {**_HEADERS, "Range": f"bytes={have}-"} if have else _HEADERS
    with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT_S) as answer:
        if url.startswith("https://") and not answer.url.startswith("https://"):
            raise _Final(f"it leads to {answer.url}, which is not https")
        if answer.status_code == 416 and have:  # asked for bytes after the last one: it was complete already
            return
        _require_answer(answer)
        continues = answer.status_code == 206
        have = have if continues else 0
        length = _length(answer)
        total = None if length is None else have + length
        answer.raw.enforce_content_length = False  # else the last piece of a connection that ends early is thrown away
        with partial.open("ab" if continues else "wb") as handle:
            for chunk in answer.iter_content(_CHUNK_BYTES):
                handle.write(chunk)
                have += len(chunk)
                progress(have, total)
            handle.flush()
            os.fsync(handle.fileno())
    if total is not None and have < total:
        raise OSError(f"the connection ended after {have} of {total} bytes")


def _require_answer(answer: requests.Response) -> None:
    said = f"status {answer.status_code}"
    if answer.status_code in _GONE:
        raise _Gone(said)
    if answer.status_code in _REFUSED:
        raise _Refused(said)
    if answer.status_code in _BUSY:
        raise OSError(said)
    if not answer.ok:
        raise _Final(said)


def _length(answer: requests.Response) -> int | None:
    length = answer.headers.get("Content-Length", "")
    return int(length) if length.isascii() and length.isdigit() else None


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
