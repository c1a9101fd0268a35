"""Digests of files and folders from outside, remembered so that a large checkpoint is read once."""

from __future__ import annotations

import hashlib
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from harness.contract.digest import digest_json, is_digest, sha256_file
from harness.contract.errors import UserError
from harness.contract.files import read_json, write_json
from harness.contract.walk import walk

if TYPE_CHECKING:
    from harness.contract.samples import SampleSet

_SETTLED_S = 2.0
"""A file changed this recently may change again within the resolution of its time stamp: its digest is not kept."""


class DigestMemo:
    """Digests by path, valid while size, time stamps and inode stay the same (the change time moves with any write).

    Args:
        folder: where the memo is kept, one small file per path.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def of(self, path: Path) -> str:
        """Digest of a file, or of a folder as its sorted names and their digests.

        Of a folder, what its readers see: links followed, hidden names and litter left out (`harness.contract.walk`).

        Raises:
            UserError: there is nothing at `path`, or a link in it leads to nothing.
        """
        try:
            if not path.is_dir():
                return self.file(path)
            rows = [[name, self.file(path / name)] for name in walk(path)]
        except (OSError, RuntimeError) as error:  # RuntimeError: a link that leads to itself
            reason = error.strerror if isinstance(error, OSError) else error
            raise UserError(f"{path}: cannot be read ({reason}); check the path.") from error
        return digest_json(rows)

    def file(self, path: Path, *, ours: bool = False) -> str:
        """SHA-256 of one file.

        Args:
            path: the file.
            ours: it is in a store of the harness, which replaces files by renaming and never writes into one. Then the
                change time is ignored: the venv runtime links such a file into every step that reads it, which
                changes that time and would cause gigabytes to be read again after each step.
        """
        real = path.resolve(strict=True)
        if not real.is_file():  # reading a pipe or a device would never end
            raise UserError(f"{path}: is not a file that can be read to its end; save its contents in a file.")
        place = self.folder / f"{hashlib.sha256(os.fsencode(real)).hexdigest()[:32]}.json"
        before = _fingerprint(real, ours)
        known = _recall(place)
        if known.get("fingerprint") == before and is_digest(known.get("sha256")):
            return str(known["sha256"])
        sha256 = sha256_file(real)
        settled = time.time() - before[-1] / 1e9 > _SETTLED_S
        if settled and _fingerprint(real, ours) == before:
            _remember(place, {"path": str(real), "fingerprint": before, "sha256": sha256})
        return sha256

    def files(self, folder: Path, *, known_as: Path | None = None) -> dict[str, str]:
        """Relative POSIX path -> SHA-256, for every file under a folder; remembered together, in one file of the memo.

        Args:
            folder: which.
            known_as: the name it is about to get by a rename, under which it is remembered.
        """
        real = (known_as or folder).absolute()
        place = self.folder / f"{hashlib.sha256(os.fsencode(real) + b'/').hexdigest()[:32]}.json"
        known = _recall(place).get("files")
        known = known if isinstance(known, dict) else {}
        rows = {name: _row(f"{folder}/{name}", known.get(name)) for name in walk(folder, error=None)}
        settled = {name: list(row) for name, row in rows.items() if time.time() - row[0][-1] / 1e9 > _SETTLED_S}
        if settled != known:
            _remember(place, {"path": str(real), "files": settled})
        return {name: sha256 for name, (_, sha256) in rows.items()}


def digest_of_samples(samples: SampleSet) -> str:
    """Of a sample set as the input of a score.

    The same pixels score differently under other prompts (requests) or labels (index), and a scorer may look at the
    generator: reconstructions are judged differently.
    """
    return digest_json([samples.manifest.index_sha256, samples.request_digest, samples.generator.get("kind")])


def _row(path: str, known: object) -> tuple[list[int], str]:
    """Fingerprint and digest of a file, `known` from before or computed now."""
    before = _fingerprint(path, ours=False)
    if isinstance(known, list) and len(known) == 2 and known[0] == before and is_digest(known[1]):
        return before, str(known[1])
    return before, sha256_file(path)


def _remember(place: Path, row: dict[str, object]) -> None:
    """Best effort: without a place to keep it, a digest is computed again the next time."""
    with suppress(OSError, UserError):
        write_json(place, row)


def _recall(place: Path) -> dict[str, object]:
    try:
        known = read_json(place)
    except UserError:  # never seen, or not ours: compute it
        return {}
    return known if isinstance(known, dict) else {}


def _fingerprint(path: Path | str, ours: bool) -> list[int]:
    """What changes with any write; a time stamp comes last."""
    stat = os.stat(path)  # noqa: PTH116 - called 50,000 times for a folder of images
    changed = [] if ours else [stat.st_ctime_ns]
    return [stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, *changed]
