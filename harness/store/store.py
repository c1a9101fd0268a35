"""Finished work by content: `<runs>/.store/<kind>/<key>/` appears whole, by one rename, and is never written again.

.store/sample/3f9a.../      entry.json  output/  log.txt      finished; what a later run trusts
.store/work/sample-3f9a.../             output/  log.txt      unfinished; kept over kills, so that a step resumes
.store/refused/sample-3f9a...-1/        output/  log.txt      complete, but not what it must be; deleted by nobody
.store/changed/sample-3f9a...-1/                              was finished, and changed since; deleted by nobody
.store/digests/                                               digests of finished files, so that they are read once
.store/leases/sample-3f9a.../           1.json                who works on it, or did
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.contract.errors import UserError
from harness.contract.files import read_json, write_json
from harness.store import lease
from harness.store.digests import DigestMemo
from harness.store.folders import discard, file_sizes, sync_tree

_KEY_LETTERS = 32


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A finished step."""

    path: Path
    """Its folder in the store."""
    key: str
    digest: str
    """Digest of the output, by the rules of its kind: what keys of later steps are made of."""
    meta: dict[str, Any] = field(default_factory=dict)
    """How it was computed: seconds, exit code, environment, everything in the key."""

    @property
    def output(self) -> Path:
        """The folder that the step wrote."""
        return self.path / "output"

    @property
    def log(self) -> Path:
        """What the step printed."""
        return self.path / "log.txt"


@dataclass(frozen=True, kw_only=True)
class Work:
    """A step in progress: its folders, and the lease that reserves them."""

    path: Path
    lease: lease.Lease

    @property
    def output(self) -> Path:
        """Where the step writes."""
        return self.path / "output"

    @property
    def log(self) -> Path:
        """Grows over interruptions; later attempts are appended."""
        return self.path / "log.txt"


class Store:
    """The store of one runs folder.

    Args:
        root: the `.store` folder; made when something is first written.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._memo = DigestMemo(root / "digests")

    def find(self, kind: str, key: str) -> Entry | None:
        """The finished entry, or None. One whose files are not the bytes that were stored counts as not there.

        What was read once is not read again as long as size, time stamps and inode say that nobody wrote to it.
        """
        path = self._entry_path(kind, key)
        try:
            row = read_json(path / "entry.json")
            entry = Entry(path=path, key=row["key"], digest=row["digest"], meta=row["meta"])
            if "sha256" in row:
                intact = self._memo.files(entry.output) == row["sha256"]
            else:  # an entry of the first version
                intact = file_sizes(entry.output) == row["files"]
        except (UserError, OSError, KeyError, TypeError):
            return None
        return entry if intact and entry.key == key else None

    def has_unfinished(self, kind: str, key: str) -> bool:
        """Whether an interrupted attempt left something to continue."""
        return (self._work_path(kind, key) / "output").exists()

    @contextmanager
    def working(
        self,
        kind: str,
        key: str,
        *,
        on_wait: Callable[[lease.Holder], None] | None = None,
        give_up: Callable[[], bool] = lambda: False,
    ) -> Iterator[Work]:
        """Become the only process that works on this key, after waiting for any live one that does.

        Call `find` again inside: the other process may have finished the work.
        """
        folder = self.root / "leases" / self._work_path(kind, key).name
        with lease.held(folder, on_wait=on_wait, give_up=give_up) as ours:
            yield Work(path=self._work_path(kind, key), lease=ours)

    def commit(self, work: Work, kind: str, key: str, *, digest: str, meta: dict[str, Any]) -> Entry:
        """Turn finished work into an entry, replacing one that is there (`--force`)."""
        work.lease.check()
        sync_tree(work.output)
        path = self._entry_path(kind, key)
        sha256 = self._memo.files(work.output, known_as=path / "output")
        row = {"kind": kind, "key": key, "digest": digest, "sha256": sha256}
        write_json(work.path / "entry.json", {**row, "meta": meta})
        path.parent.mkdir(parents=True, exist_ok=True)
        discard(path)
        work.path.rename(path)
        return Entry(path=path, key=key, digest=digest, meta=meta)

    def put_changed_aside(self, kind: str, key: str) -> Path | None:
        """Move a finished entry that `find` does not believe, since somebody changed it, to a name of its own."""
        path = self._entry_path(kind, key)
        return self._move_aside(path, f"changed/{kind}-{path.name}") if path.exists() else None

    def keep_aside(self, work: Work) -> Path:
        """Move an attempt whose output was refused to a name of its own, where nobody deletes it; the new folder."""
        return self._move_aside(work.path, f"refused/{work.path.name}")

    def kept_aside(self, work: Work) -> Path | None:
        """Where the last attempt at this work whose output was refused is kept."""
        found = self.root.glob(f"refused/{work.path.name}-*")
        return max(found, key=lambda path: int(path.name.rpartition("-")[2]), default=None)

    def _move_aside(self, path: Path, name: str) -> Path:
        kept = next(free for n in itertools.count(1) if not (free := self.root / f"{name}-{n}").exists())
        kept.parent.mkdir(parents=True, exist_ok=True)
        path.rename(kept)
        return kept

    def _entry_path(self, kind: str, key: str) -> Path:
        return self.root / kind / key[:_KEY_LETTERS]

    def _work_path(self, kind: str, key: str) -> Path:
        return self.root / "work" / f"{kind}-{key[:_KEY_LETTERS]}"
