"""Where the samples of a tar shard are, indexed once, so that any of them can be read with one seek.

A shard is an uncompressed tar in which consecutive members that differ only in their last suffix are a sample
(WebDataset). Nothing is ever unpacked to the disk. An index is stored in the cache folder ($GEAR_CACHE, else
$XDG_CACHE_HOME/gear, else ~/.cache/gear) under the shard's path, size and time of change; deleting it costs a scan.
"""

from __future__ import annotations

import hashlib
import logging
import os
import random
import tarfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from enum import IntEnum
from itertools import groupby
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.contract.errors import UserError
from harness.contract.files import write_atomically
from harness.contract.tar import tar_members
from harness.contract.walk import IMAGE_SUFFIXES, is_data

log = logging.getLogger(__name__)

INDEX_VERSION = 2
_PREFERRED = ("jpg", "jpeg", "png")
IMAGE_MEMBERS = (*_PREFERRED, *sorted({suffix[1:] for suffix in IMAGE_SUFFIXES}.difference(_PREFERRED)))
"""Suffixes of the image, in order of preference."""
TEXT_MEMBERS = ("json", "txt")
MAX_MEMBER_BYTES = 256 << 20
"""A larger image or text is refused, since it would be read into memory whole."""
_PARALLEL_FROM = 8
"""From this many shards on, starting helper processes pays off."""


class Problem(IntEnum):
    """Why a sample of a shard cannot be used. It stays in the index, to be counted and reported when it is read."""

    NONE = 0
    NO_IMAGE = 1
    NOT_A_FILE = 2
    TOO_LARGE = 3
    DAMAGED = 4

    @property
    def sentence(self) -> str:
        return _SENTENCES[self]


_SENTENCES = {
    Problem.NONE: "nothing is wrong with it",
    Problem.NO_IMAGE: f"it has no image ({', '.join(IMAGE_MEMBERS)})",
    Problem.NOT_A_FILE: "a member of it is a link, a device or a sparse file, not a plain file",
    Problem.TOO_LARGE: f"a member of it is larger than {MAX_MEMBER_BYTES >> 20} MiB",
    Problem.DAMAGED: "the archive is damaged or cut off from here on",
}


def load_index(shard: Path) -> npt.NDArray[np.void]:
    """The index of a shard: one row per sample, mapped from the cache; the shard is scanned first if it has none.

    Fields: key (bytes), and offset and size in bytes of image, json and txt (size -1 = absent), problem.
    """
    path = _cache_path(shard)
    if not path.exists():
        _build_index(shard)
    try:
        index = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError):
        log.warning("%s is damaged; scanning %s again.", path, shard)
        path.unlink(missing_ok=True)
        _build_index(shard)
        index = np.load(path, mmap_mode="r", allow_pickle=False)
    return index


def build_indices(shards: Sequence[Path], workers: int | None = None) -> None:
    """Scan the shards that have no index yet, several at a time. workers: helper processes; None chooses."""
    missing = [shard for shard in shards if not _cache_path(shard).exists()]
    if not missing:
        return
    log.info("indexing %d shards (once; kept in %s)", len(missing), _cache_folder())
    if workers is None:
        workers = min(16, os.cpu_count() or 1) if len(missing) >= _PARALLEL_FROM else 0
    # Other processes of the same run may be doing this too: with a different order in each, they share the work.
    random.Random(os.getpid()).shuffle(missing)
    if workers == 0:
        for shard in missing:
            _build_index(shard)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for number, _ in enumerate(pool.map(_build_index, missing), start=1):
            if number % 100 == 0:
                log.info("indexed %d of %d shards", number, len(missing))


def _build_index(shard: Path) -> None:
    path = _cache_path(shard)
    if path.exists():
        return
    rows = list(scan(shard))
    width = max([len(row[0]) for row in rows], default=1)
    index = np.array(rows, dtype=_dtype(width))
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(path) as stream:
        np.save(stream, index, allow_pickle=False)


def _dtype(key_bytes: int) -> np.dtype[np.void]:
    members = [(f"{name}_{what}", "<i8") for name in ("image", *TEXT_MEMBERS) for what in ("offset", "size")]
    return np.dtype([("key", f"S{max(1, key_bytes)}"), *members, ("problem", "u1")])


def _cache_folder() -> Path:
    cache = os.environ.get("GEAR_CACHE")
    if cache:
        return Path(cache) / "shards"
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gear" / "shards"
    except RuntimeError:
        raise UserError(
            "This user has no home directory to keep indices of tar shards in; export GEAR_CACHE=/a/folder"
        ) from None


def _cache_path(shard: Path) -> Path:
    facts = shard.stat()
    identity = f"{INDEX_VERSION}|{shard.resolve()}|{facts.st_size}|{facts.st_mtime_ns}"
    return _cache_folder() / f"{shard.stem}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}.npy"


# -- scanning ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Member:
    key: bytes
    suffix: str
    offset: int
    size: int
    problem: Problem


def scan(shard: Path) -> Iterator[tuple[Any, ...]]:
    """The rows of a shard's index. A damaged archive gives the samples before the damage and one row that says so."""
    for key, group in groupby(_members(shard), key=lambda member: member.key):
        members = {member.suffix: member for member in group}
        problem = max(member.problem for member in members.values())
        image = next((members[suffix] for suffix in IMAGE_MEMBERS if suffix in members), None)
        if image is None and problem == Problem.NONE:
            problem = Problem.NO_IMAGE
        places = [image, *(members.get(suffix) for suffix in TEXT_MEMBERS)]
        spans = [span for member in places for span in ((member.offset, member.size) if member else (0, -1))]
        yield (key, *spans, int(problem))


def _members(shard: Path) -> Iterator[_Member]:
    """The members that are parts of samples, in order; folders, other suffixes and hidden names are skipped."""
    end = 0
    try:
        with shard.open("rb") as stream:
            for member in tar_members(stream):
                end = member.offset_data
                key, suffix = _split(member.name)
                if not member.isdir() and suffix in (*IMAGE_MEMBERS, *TEXT_MEMBERS) and is_data(member.name):
                    yield _Member(key, suffix, member.offset_data, member.size, _problem(member))
    except (OSError, ValueError) as error:
        log.warning("%s: %s", shard, error)
        yield _Member(f"(byte {end})".encode(), "", 0, -1, Problem.DAMAGED)


def _split(name: str) -> tuple[bytes, str]:
    """Name without its last suffix, and that suffix in lower case."""
    folder, slash, base = name.rpartition("/")
    stem, _, suffix = base.rpartition(".")
    return os.fsencode(folder + slash + stem), suffix.lower()


def _problem(member: tarfile.TarInfo) -> Problem:
    if not member.isreg() or member.issparse():
        return Problem.NOT_A_FILE
    return Problem.TOO_LARGE if member.size > MAX_MEMBER_BYTES else Problem.NONE
