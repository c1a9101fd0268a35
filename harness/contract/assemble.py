"""Assembles a sample set from a stream of pixels. The manifest is written last: without it nothing is trusted.

Unfinished work is in `work/` inside the output folder: `work.json` (the owner), shards, and the pixel file or tree as
it grows. The pixels are renamed into place when complete, and `work/` is removed once `samples.json` is written.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.contract.digest import canonical_json, digest_pixels, digest_sequence, sha256_file
from harness.contract.errors import BadSamples, EnvironmentFailure, UserError
from harness.contract.fields import build
from harness.contract.files import (
    PARTIAL_SUFFIX,
    explain_disk_errors,
    read_json,
    remove_stale_partials,
    write_json,
    write_json_lines,
)
from harness.contract.images import encode_png
from harness.contract.npz import NpzStreamWriter
from harness.contract.progress import Progress
from harness.contract.requests import HEAD_FILE, LINES_FILE, RequestSet
from harness.contract.samples import (
    IMAGES_DIR,
    INDEX_FILE,
    MANIFEST_FILE,
    NPZ_FILE,
    Form,
    IndexEntry,
    Manifest,
    SampleSet,
    num_threads,
)

WORK_DIR = "work"
CLAIM_FILE = "work.json"


@dataclass(frozen=True, kw_only=True)
class _Claim:
    """The contents of `work.json`."""

    owner: dict[str, Any]
    """The owner: it must be equal for the work to be continued."""
    settings: dict[str, Any]
    """The settings of the run that began the work."""


def claim(out: Path, owner: Mapping[str, Any], settings: Mapping[str, Any], describe: str) -> dict[str, Any]:
    """Make `out/work`, or reopen it for the same owner, and return the settings it was begun with.

    Args:
        out: the folder of the new sample set.
        owner: what must be equal for unfinished work to be continued.
        settings: settings for new work; unfinished work keeps those of its first run.
        describe: the owner in words, for the error about another owner's work.
    Raises:
        UserError: the folder holds unfinished work of another owner, or files that this command did not write.
    """
    work = out / WORK_DIR
    path = work / CLAIM_FILE
    if not path.exists():
        _refuse_strangers(out)
        write_json(path, asdict(_Claim(owner=dict(owner), settings=dict(settings))))
    found = build(_Claim, read_json(path), str(path))
    if canonical_json(found.owner) != canonical_json(owner):
        raise UserError(
            f"{work}: holds unfinished work that is not {describe}; choose another folder, or delete {work}."
        )
    remove_stale_partials(work)
    return found.settings


def _refuse_strangers(out: Path) -> None:
    """Refuse a folder with files of another origin: they must not be overwritten or removed."""
    for name in (NPZ_FILE, IMAGES_DIR, INDEX_FILE, HEAD_FILE, LINES_FILE):
        if (out / name).exists():
            raise UserError(f"{out / name}: is in the way and was not written by this command; choose another folder.")
    work = out / WORK_DIR
    # A kill before the claim was written leaves temporary files only.
    strange = work.exists() and not (
        work.is_dir() and all(path.name.endswith(PARTIAL_SUFFIX) for path in work.iterdir())
    )
    # Another process of the same job may have made its claim meanwhile; its owner is compared next.
    if strange and not (work / CLAIM_FILE).exists():
        raise UserError(f"{work}: is in the way and was not written by this command; choose another folder.")


def assemble(
    out: Path,
    *,
    form: Form,
    image_size: int,
    entries: Sequence[IndexEntry],
    batches: Iterable[np.ndarray],
    requests: RequestSet | None,
    generator: Mapping[str, Any],
    progress: Progress | None = None,
    reread: bool = False,
) -> SampleSet:
    """Stream `batches` into `out`, then write requests, index and, last of all, the manifest.

    Args:
        out: a folder that was claimed.
        form: "npz" or "png".
        image_size: side of the images.
        entries: id, path and label of each image in order; a non-empty `sha256` is what the pixels must have.
        batches: (n, H, W, 3) uint8, together as many as there are entries.
        requests: the request set of the images, where it is known.
        generator: the generator of the images, as recorded.
        progress: advanced by each batch.
        reread: read everything back from disk and compare, before the manifest is written.
    Raises:
        BadSamples: pixels that do not match the hash of their entry.
        EnvironmentFailure: the disk is full; shards stay.
    """
    work = out / WORK_DIR
    with explain_disk_errors(out):
        if form == "npz":
            _require_space(out, len(entries) * image_size * image_size * 3)
        sink = _npz_sink(work, image_size, entries) if form == "npz" else _png_sink(work, entries)
        with sink as store, ThreadPoolExecutor(num_threads()) as pool:
            digests = list(_stored(batches, store, pool, progress))
        finished = [
            IndexEntry(entry.id, entry.path, digest, entry.label)
            for entry, digest in zip(entries, digests, strict=True)
        ]
        _check_expected(entries, finished, out)
        _publish(work, out, NPZ_FILE if form == "npz" else IMAGES_DIR)
        if requests is not None:
            requests.write(out)
        write_json_lines(out / INDEX_FILE, (entry.to_row() for entry in finished))
        manifest = Manifest(
            form=form,
            count=len(finished),
            image_size=image_size,
            digest=digest_sequence(digests),
            index_sha256=sha256_file(out / INDEX_FILE),
            request_digest=None if requests is None else requests.digest,
            generator=generator,
        )
        samples = SampleSet(out, manifest, finished)
        if reread:
            samples.validate()
        write_json(out / MANIFEST_FILE, manifest.to_row())
    drop_work(out)
    return samples


def drop_work(out: Path) -> None:
    """Remove what a finished sample set no longer needs."""
    if (out / WORK_DIR / CLAIM_FILE).exists():
        # The set is finished even if this fails: a network file system may still hold a file open.
        shutil.rmtree(out / WORK_DIR, ignore_errors=True)


def _stored(
    batches: Iterable[np.ndarray],
    store: Callable[[np.ndarray, ThreadPoolExecutor], None],
    pool: ThreadPoolExecutor,
    progress: Progress | None,
) -> Iterator[str]:
    """Store each batch and yield the digests of its images."""
    for images_u8 in batches:
        store(images_u8, pool)
        yield from pool.map(digest_pixels, images_u8)
        if progress:
            progress.advance(len(images_u8))


@contextmanager
def _npz_sink(
    work: Path, image_size: int, entries: Sequence[IndexEntry]
) -> Iterator[Callable[[np.ndarray, ThreadPoolExecutor], None]]:
    labels = [entry.label for entry in entries]
    extra = {} if labels[0] is None else {"labels": np.array(labels, np.int64)}
    tail = (image_size, image_size, 3)
    with NpzStreamWriter(work / NPZ_FILE, count=len(entries), shape_tail=tail, extra=extra) as writer:
        yield lambda images_u8, _: writer.append(images_u8)


@contextmanager
def _png_sink(work: Path, entries: Sequence[IndexEntry]) -> Iterator[Callable[[np.ndarray, ThreadPoolExecutor], None]]:
    root = work / IMAGES_DIR
    if root.exists():
        shutil.rmtree(root)  # a partial tree from a run that was killed
    root.mkdir()
    for folder in {str(Path(entry.path).parent) for entry in entries}:
        (root / folder).mkdir(parents=True, exist_ok=True)
    paths = (root / entry.path for entry in entries)  # this function just made the tree, so it has no symbolic links

    def write_one(path: Path, image_u8: np.ndarray) -> None:
        path.write_bytes(encode_png(image_u8))

    def store(images_u8: np.ndarray, pool: ThreadPoolExecutor) -> None:
        places = [next(paths) for _ in images_u8]
        for _ in pool.map(write_one, places, images_u8):
            pass

    try:
        yield store
    except BaseException:
        shutil.rmtree(root, ignore_errors=True)  # frees a full disk; the tree is written from the start anyway
        raise


def _check_expected(entries: Sequence[IndexEntry], finished: Sequence[IndexEntry], out: Path) -> None:
    for entry, found in zip(entries, finished, strict=True):
        if entry.sha256 and entry.sha256 != found.sha256:
            raise BadSamples(f"{out}: {entry.id!r} reads back with different pixels; run the same command again.")


def _publish(work: Path, out: Path, name: str) -> None:
    """Rename the finished pixels into place. Anything there without a manifest is an untrusted earlier attempt."""
    (out / NPZ_FILE).unlink(missing_ok=True)
    if (out / IMAGES_DIR).exists():
        shutil.rmtree(out / IMAGES_DIR)
    (work / name).replace(out / name)


def _require_space(out: Path, needed: int) -> None:
    free = shutil.disk_usage(out).free
    if free < needed:
        raise EnvironmentFailure(
            f"{out}: assembling the samples needs {needed / 1e6:,.0f} MB and the disk has "
            f"{free / 1e6:,.0f} MB; "
            "finished work is kept. Free some space and run the same command again."
        )
