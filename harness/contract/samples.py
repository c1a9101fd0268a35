"""Reads sample sets: the images that a generator drew, each with the hash of its pixels.

Shapes: a batch is (n, H, W, 3) uint8, H = W = image_size. Nothing here holds more than a batch of pixels; the index
(ids, paths, hashes: about 20 MB for 50,000 images) is in memory.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import numpy as np

from harness.contract.digest import digest_pixels, digest_sequence, sha256_file
from harness.contract.errors import BadSamples
from harness.contract.fields import Digest, Text, Within, build
from harness.contract.files import PathLike, read_head, read_json_lines, relative_path_problem, safe_join
from harness.contract.images import read_png
from harness.contract.npz import npz_names, open_npz_member, read_npz_array
from harness.contract.progress import Progress
from harness.contract.requests import HEAD_FILE, MAX_IMAGE_SIZE, NUM_LABELS, RequestSet
from harness.contract.walk import walk

FORMAT = "sample-set"
SCHEMA_VERSION = 1
MANIFEST_FILE = "samples.json"
INDEX_FILE = "index.jsonl"
NPZ_FILE = "samples.npz"
IMAGES_DIR = "images"
Form = Literal["npz", "png"]
FORMS: tuple[Form, ...] = get_args(Form)
Kind = Literal["generated", "reconstructions"]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""The values of a generator's `kind` that readers of a sample set know."""

_BATCH = 32
_MAX_THREADS = 8
_AGAIN = "copy the whole folder again, or draw the samples again"


@dataclass(frozen=True)
class IndexEntry:
    """One image of a sample set, as a line of `index.jsonl`. The same line serves both forms."""

    id: Text
    path: Text
    """Where the image is in the PNG form, below `images/`."""
    sha256: Digest
    """`digest_pixels` of the image; "" before the pixels are there."""
    label: Annotated[int, Within(0, NUM_LABELS)] | None = None

    def to_row(self) -> dict[str, Any]:
        """The line of `index.jsonl`."""
        row: dict[str, Any] = {"id": self.id, "path": self.path, "sha256": self.sha256}
        return row if self.label is None else {**row, "label": self.label}


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The contents of `samples.json`."""

    form: Form
    count: Annotated[int, Within(1)]
    image_size: Annotated[int, Within(1, MAX_IMAGE_SIZE + 1)]
    digest: Digest
    """`digest_sequence` of the pixel hashes in order: the same for both forms."""
    index_sha256: Digest
    request_digest: Digest | None = None
    """Of the request set the images were drawn for; None where it is not known."""
    generator: Mapping[str, Any]
    """The generator of the images, with its options."""

    def to_row(self) -> dict[str, Any]:
        """The object of `samples.json`."""
        return {"format": FORMAT, "schema_version": SCHEMA_VERSION, **vars(self), "generator": dict(self.generator)}


class SampleSet:
    """A finished sample set. Get one from `SampleSet.open`, `SampleSetWriter.finish`, or the functions that adopt."""

    def __init__(self, folder: Path, manifest: Manifest, entries: Sequence[IndexEntry]) -> None:
        self.folder = folder
        self.manifest = manifest
        self.entries = entries

    @classmethod
    def open(cls, folder: PathLike) -> SampleSet:
        """Open a sample set after the checks that need no pixel: manifest, index, header of the NPZ, presence of PNGs.

        Pixels are checked as they are read; `validate` reads them all.

        Raises:
            BadSamples: naming the file and what to do.
        """
        samples = cls.open_index(folder)
        samples._check_pixel_files()
        return samples

    @classmethod
    def open_index(cls, folder: PathLike) -> SampleSet:
        """Open what states the images, manifest and index, where their pixels may be elsewhere.

        Raises:
            BadSamples: naming the file and what to do.
        """
        folder = Path(folder)
        manifest = _read_manifest(folder)
        return cls(folder, manifest, _read_index(folder, manifest))

    def __len__(self) -> int:
        return self.manifest.count

    @property
    def digest(self) -> str:
        """The identity of the images: the hash of their ordered pixel hashes."""
        return self.manifest.digest

    @property
    def form(self) -> Form:
        """How the pixels are stored: "npz" or "png"."""
        return self.manifest.form

    @property
    def image_size(self) -> int:
        """Side of the images, in pixels."""
        return self.manifest.image_size

    @property
    def generator(self) -> Mapping[str, Any]:
        """The generator of the images, with its options."""
        return self.manifest.generator

    @property
    def kind(self) -> Kind | None:
        """What the images are: the generator's `kind`, or None where that is absent or unknown."""
        return next((kind for kind in KINDS if kind == self.generator.get("kind")), None)

    @property
    def request_digest(self) -> str | None:
        """The digest of the request set the images were drawn for, where it is known."""
        return self.manifest.request_digest

    @property
    def ids(self) -> list[str]:
        """The id of each image, in order."""
        return [entry.id for entry in self.entries]

    @cached_property
    def labels(self) -> np.ndarray | None:
        """(N,) int64 class labels, or None for a set without them."""
        if self.entries[0].label is None:
            return None
        return np.array([entry.label for entry in self.entries], np.int64)

    @cached_property
    def requests(self) -> RequestSet | None:
        """The request set the images were drawn for, in the order of the images; None where it is not known.

        Raises:
            BadSamples: the requests beside the samples are not the ones they were drawn for.
        """
        if self.request_digest is None:
            return None
        requests = RequestSet.read(self.folder, error=BadSamples)
        if requests.digest != self.request_digest or [request.id for request in requests] != self.ids:
            raise BadSamples(f"{self.folder / HEAD_FILE}: is not the request set of the samples; {_AGAIN}.")
        return requests

    @property
    def has_pixels(self) -> bool:
        """Whether any pixels are in the folder."""
        return (self.folder / (NPZ_FILE if self.form == "npz" else IMAGES_DIR)).exists()

    @property
    def npz_path(self) -> Path:
        """The archive of a set in NPZ form: `arr_0` (N, H, W, 3) uint8, and `labels` (N,) int64 where there are any."""
        return self.folder / NPZ_FILE

    def image_path(self, index: int) -> Path:
        """The file of image `index` of a set in PNG form, checked to lie inside the folder."""
        return safe_join(self.folder / IMAGES_DIR, self.entries[index].path, error=BadSamples)

    def batches(self, size: int = _BATCH) -> Iterator[np.ndarray]:
        """Yield the images in order as (n, H, W, 3) uint8, n = size except for the last batch.

        Every image is compared with its hash in the index, so what is yielded is what was drawn.

        Raises:
            BadSamples: an image is damaged or was changed.
        """
        start = 0
        with ThreadPoolExecutor(num_threads()) as pool:
            for images_u8 in self._unchecked_batches(size, pool):
                self._check_pixels(range(start, start + len(images_u8)), images_u8, pool)
                start += len(images_u8)
                yield images_u8

    def images(self, indices: Sequence[int]) -> np.ndarray:
        """The images at `indices`, (n, H, W, 3) uint8, without reading the others; checked like those of `batches`."""
        positions = [range(len(self))[index] for index in indices]
        with ThreadPoolExecutor(num_threads()) as pool:
            if self.form == "png":
                images_u8 = self._read_pngs(positions, pool)
            else:
                images_u8 = self._read_rows(positions)
            self._check_pixels(positions, images_u8, pool)
        return images_u8

    def validate(self, progress: Progress | None = None) -> None:
        """Read everything and check it: every pixel, the labels, the requests, and that there are no stray images.

        Raises:
            BadSamples: naming the first file that is wrong.
        """
        self._check_requests()
        self._check_npz_labels()
        self._check_strays()
        for images_u8 in self.batches():
            if progress:
                progress.advance(len(images_u8))

    # --- reading pixels ----------------------------------------------------------------------------------------------

    def _unchecked_batches(self, size: int, pool: ThreadPoolExecutor) -> Iterator[np.ndarray]:
        if self.form == "npz":
            with open_npz_member(self.npz_path) as member:
                yield from member.batches(size)
            return
        for start in range(0, len(self), size):
            yield self._read_pngs(range(start, min(start + size, len(self))), pool)

    def _read_pngs(self, indices: Sequence[int], pool: ThreadPoolExecutor) -> np.ndarray:
        images_u8 = np.empty((len(indices), self.image_size, self.image_size, 3), np.uint8)

        def read(place: int) -> None:
            images_u8[place] = read_png(self.image_path(indices[place]), self.image_size)

        for _ in pool.map(read, range(len(indices))):
            pass
        return images_u8

    def _read_rows(self, indices: Sequence[int]) -> np.ndarray:
        with open_npz_member(self.npz_path) as member:
            offset = member.data_offset
        assert offset is not None  # SampleSet.open refuses a compressed archive
        images_u8 = np.empty((len(indices), self.image_size, self.image_size, 3), np.uint8)
        with self.npz_path.open("rb") as handle:
            for place, index in enumerate(indices):
                handle.seek(offset + index * images_u8[0].nbytes)
                handle.readinto(memoryview(images_u8[place]).cast("B"))
        return images_u8

    def _check_pixels(self, indices: Sequence[int], images_u8: np.ndarray, pool: ThreadPoolExecutor) -> None:
        for index, digest in zip(indices, pool.map(digest_pixels, images_u8), strict=True):
            if digest != self.entries[index].sha256:
                where = self.image_path(index) if self.form == "png" else f"{self.npz_path}, image {index}"
                raise BadSamples(
                    f"{where}: does not match its hash in {INDEX_FILE} (it was changed or damaged); {_AGAIN}."
                )

    # --- checks ------------------------------------------------------------------------------------------------------

    def _check_pixel_files(self) -> None:
        if self.form == "npz":
            expected = (len(self), self.image_size, self.image_size, 3)
            with open_npz_member(self.npz_path) as member:
                check_images_header(member.shape, member.dtype, self.npz_path)
                if member.shape != expected or member.data_offset is None:
                    kind = "compressed" if member.data_offset is None else str(member.shape)
                    raise BadSamples(
                        f"{self.npz_path}: arr_0 is {kind}, not plain {expected} as {MANIFEST_FILE} says; {_AGAIN}."
                    )
            return
        images = self.folder / IMAGES_DIR
        missing = [entry.path for entry in self.entries if not (images / entry.path).is_file()]
        if missing:
            raise BadSamples(
                f"{images / missing[0]}: is missing, with {len(missing) - 1} more of {len(self)}; {_AGAIN}."
            )

    def _check_requests(self) -> None:
        requests = self.requests
        if requests is None:
            return
        if requests.protocol.image_size != self.image_size:
            raise BadSamples(
                f"{self.folder / MANIFEST_FILE}: the images are {self.image_size} px where "
                f"{requests.protocol.image_size} px were asked for; draw them at that size."
            )
        for request, entry in zip(requests, self.entries, strict=True):
            if (request.path, request.label) != (entry.path, entry.label):
                raise BadSamples(
                    f"{self.folder / INDEX_FILE}: {entry.id!r} has another path or label than its request; {_AGAIN}."
                )

    def _check_npz_labels(self) -> None:
        if self.form != "npz" or self.labels is None:
            return
        labels = read_npz_array(self.npz_path, "labels")
        if labels.dtype != np.int64 or not np.array_equal(labels, self.labels):
            raise BadSamples(f"{self.npz_path}: 'labels' are not those of {INDEX_FILE}; {_AGAIN}.")

    def _check_strays(self) -> None:
        if self.form == "npz":
            strays = sorted(set(npz_names(self.npz_path)) - {"arr_0", "labels"})
            if strays:
                raise BadSamples(
                    f"{self.npz_path}: holds {strays[0]!r} besides arr_0 and labels; write it again without it."
                )
            return
        images = self.folder / IMAGES_DIR
        known = {entry.path for entry in self.entries}
        for path in walk(images, error=BadSamples):
            if path not in known:
                raise BadSamples(f"{images / path}: is not in {INDEX_FILE}; remove it, or {_AGAIN}.")


def num_threads() -> int:
    """Threads for hashing, coding and decoding, all of which release the interpreter lock."""
    return min(_MAX_THREADS, os.cpu_count() or 1)


def check_images_header(shape: tuple[int, ...], dtype: np.dtype, path: Path) -> None:
    """Check that an array is (N, H, W, 3) uint8 with H = W, with an error that says how to make it so."""
    if dtype != np.uint8:
        of_floats = "127.5 * x + 128 for x within -1..1, 255 * x + 0.5 within 0..1, x + 0.5 within 0..255"
        x = f"y, 0, 255).astype(np.uint8) with y = {of_floats}" if dtype.kind == "f" else "x, 0, 255).astype(np.uint8)"
        raise BadSamples(f"{path}: arr_0 is {dtype}, not uint8; save np.clip({x}.")
    if len(shape) == 4 and shape[3] != 3 and shape[1] == 3:
        raise BadSamples(f"{path}: arr_0 is {shape}, channels first; save images.transpose(0, 2, 3, 1).")
    if len(shape) != 4 or shape[3] != 3:
        raise BadSamples(f"{path}: arr_0 has the shape {shape}, not (N, H, W, 3); save RGB images in that layout.")
    if shape[0] == 0:
        raise BadSamples(f"{path}: arr_0 holds no images; draw the samples again.")
    if shape[1] != shape[2] or not 1 <= shape[1] <= MAX_IMAGE_SIZE:
        raise BadSamples(
            f"{path}: the images are {shape[2]}x{shape[1]}; crop them to a square of 1..{MAX_IMAGE_SIZE} px."
        )


def _read_manifest(folder: Path) -> Manifest:
    path = folder / MANIFEST_FILE
    if not path.is_file():
        if (folder / "work").is_dir():
            raise BadSamples(f"{folder}: the samples are not finished; run the drawing command again.")
        raise BadSamples(
            f"{path}: is missing, so this is not a sample set; for your own NPZ or image folder run "
            f"python -m harness.contract adopt {folder} OUT"
        )
    head = read_head(path, FORMAT, SCHEMA_VERSION, error=BadSamples)
    return build(Manifest, head, str(path), error=BadSamples)


def _read_index(folder: Path, manifest: Manifest) -> list[IndexEntry]:
    path = folder / INDEX_FILE
    entries = [_read_entry(row, f"{path}, line {number}") for number, row in _lines(path)]
    if len(entries) != manifest.count:
        raise BadSamples(f"{path}: lists {len(entries)} images where {MANIFEST_FILE} says {manifest.count}; {_AGAIN}.")
    check_distinct(entries, path)
    if len({entry.label is None for entry in entries}) > 1:
        raise BadSamples(f"{path}: some images have a label and some have none; {_AGAIN}.")
    if (
        digest_sequence(entry.sha256 for entry in entries) != manifest.digest
        or sha256_file(path) != manifest.index_sha256
    ):
        raise BadSamples(f"{path}: does not match its sha256 in {MANIFEST_FILE}; {_AGAIN}.")
    return entries


def _lines(path: Path) -> Iterable[tuple[int, dict[str, Any]]]:
    if not path.is_file():
        raise BadSamples(f"{path}: is missing; {_AGAIN}.")
    return read_json_lines(path, error=BadSamples)


def _read_entry(row: Mapping[str, Any], where: str) -> IndexEntry:
    entry = build(IndexEntry, row, where, error=BadSamples)
    problem = relative_path_problem(entry.path)
    if problem:
        raise BadSamples(f"{where}: the path {entry.path!r} {problem}.")
    return entry


def check_distinct(entries: Sequence[IndexEntry], where: Path) -> None:
    """Refuse repeated ids or paths."""
    for name in ("id", "path"):
        seen: dict[str, str] = {}
        for entry in entries:
            value = getattr(entry, name)
            if value in seen:
                both = f", for {seen[value]!r} and {entry.id!r}" if name == "path" else ""
                raise BadSamples(f"{where}: the {name} {value!r} occurs twice{both}; make them unique.")
            seen[value] = entry.id
