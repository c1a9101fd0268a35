"""Adopts samples that no `SampleSetWriter` wrote, and converts a sample set from one form to the other.

The pixels are copied, not linked: a sample set owns its files, so nobody changes them by overwriting the original.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from harness.contract.assemble import assemble, claim
from harness.contract.errors import BadSamples, UserError
from harness.contract.files import PathLike, as_read_back, relative_path_problem
from harness.contract.images import read_any_image
from harness.contract.npz import npz_names, open_npz_member, read_npz_array
from harness.contract.parse import as_unicode
from harness.contract.progress import Progress
from harness.contract.requests import NUM_LABELS, RequestSet
from harness.contract.samples import (
    FORMS,
    MANIFEST_FILE,
    Form,
    IndexEntry,
    Kind,
    SampleSet,
    check_distinct,
    check_images_header,
    num_threads,
)
from harness.contract.walk import IMAGE_SUFFIXES, find_images

_BATCH = 32


def sample_set_from_npz(
    path: PathLike,
    out_dir: PathLike,
    *,
    form: Form = "npz",
    requests: RequestSet | None = None,
    generator: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> SampleSet:
    """Adopt an NPZ from elsewhere, compressed or not, as a sample set in `out_dir`.

    Args:
        path: holds `arr_0` (N, H, W, 3) uint8, and perhaps N integer labels as `labels` (or `arr_1`, as ADM has it).
        out_dir: the folder of the new sample set.
        form: of the new sample set.
        requests: what the images were drawn for, in order; if given, number and size must match.
        generator: as recorded in the manifest; by default only the name of the file.
        progress: advanced by each batch.
    Raises:
        BadSamples: the archive is damaged, or is not as required; the message has the line that fixes it.
    """
    path, out_dir = Path(path), Path(out_dir)
    with open_npz_member(path) as member:
        check_images_header(member.shape, member.dtype, path)
        count, image_size = member.shape[0], member.shape[1]
        entries = (
            _requested_entries(requests, count, image_size, path)
            if requests
            else _numbered_entries(_npz_labels(path, count), count)
        )
        claim_out(out_dir, form)
        return assemble(
            out_dir,
            form=form,
            image_size=image_size,
            entries=entries,
            batches=member.batches(_BATCH),
            requests=requests,
            generator=as_read_back(generator or adopted(path), "generator"),
            progress=progress,
        )


def sample_set_from_folder(
    path: PathLike,
    out_dir: PathLike,
    *,
    form: Form = "npz",
    requests: RequestSet | None = None,
    generator: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> SampleSet:
    """Adopt a folder of images (PNG, JPEG, WebP, BMP, TIFF, PPM; subfolders too) as a sample set in `out_dir`.

    Args:
        path: the folder. Without `requests`, all images in it, sorted by path; see `harness.contract.walk` for links,
            hidden names and images of other kinds.
        out_dir: the folder of the new sample set.
        form: of the new sample set.
        requests: what the images were drawn for; if given, each is looked up at the path of its request.
        generator: as recorded in the manifest; by default only the name of the folder.
        progress: advanced by each batch.
    Raises:
        BadSamples: an image is missing, damaged, of another size, or ambiguous as 8-bit RGB (transparency, 16 bits).
    """
    path, out_dir = Path(path), Path(out_dir)
    files = _requested_files(path, requests) if requests else _image_files(path)
    image_size = _side(files[0])
    if requests:
        entries = _requested_entries(requests, len(files), image_size, path)
    else:
        entries = [_file_entry(file.relative_to(path).as_posix(), file) for file in files]
        check_distinct(entries, path)
    claim_out(out_dir, form)
    return assemble(
        out_dir,
        form=form,
        image_size=image_size,
        entries=entries,
        batches=_file_batches(files, image_size),
        requests=requests,
        generator=as_read_back(generator or adopted(path), "generator"),
        progress=progress,
    )


def convert(src: PathLike, dst: PathLike, form: Form, progress: Progress | None = None) -> SampleSet:
    """Write the sample set `src` as `dst` in `form`; digest and index stay the same.

    The result is read back from disk and compared pixel by pixel before its manifest is written.

    Raises:
        BadSamples: `src` is damaged.
        UserError: `dst` is already in use. If the same conversion was done before, its result is returned.
    """
    samples, dst = SampleSet.open(src), Path(dst)
    if (dst / MANIFEST_FILE).exists():
        done = SampleSet.open(dst)
        if (done.digest, done.form, done.request_digest) == (samples.digest, form, samples.request_digest):
            return done
    claim_out(dst, form)
    return assemble(
        dst,
        form=form,
        image_size=samples.image_size,
        entries=samples.entries,
        batches=samples.batches(_BATCH),
        requests=samples.requests,
        generator=samples.generator,
        progress=progress,
        reread=True,
    )


def adopted(path: Path, kind: Kind | None = None) -> dict[str, str]:
    """The recorded generator of samples known only by their file, with `kind` where the user gives it."""
    generator = {"name": "adopted", "source": as_unicode(path.resolve().name)}
    return generator if kind is None else {**generator, "kind": kind}


def claim_out(out: Path, form: str) -> None:
    """Claim a folder for a sample set that is copied from elsewhere; UserError when it holds one already."""
    if form not in FORMS:
        raise UserError(f"the form of a sample set is 'npz' or 'png', not {form!r}.")
    if (out / MANIFEST_FILE).exists():
        raise UserError(f"{out}: already holds a sample set; use it, or choose another folder.")
    # A copy starts over from its source, so it may take over the unfinished work of any other copy.
    claim(out, {"copying": True}, {}, "a copy of samples")


# --- entries ---------------------------------------------------------------------------------------------------------


def _requested_entries(requests: RequestSet, count: int, image_size: int, path: Path) -> list[IndexEntry]:
    if count != len(requests):
        raise BadSamples(f"{path}: holds {count} images where {len(requests)} were requested; draw the missing ones.")
    if image_size != requests.protocol.image_size:
        raise BadSamples(
            f"{path}: the images are {image_size} px where {requests.protocol.image_size} px were requested; "
            "draw or resize them to that size."
        )
    return [IndexEntry(request.id, request.path, "", request.label) for request in requests]


def _numbered_entries(labels: Sequence[int] | None, count: int) -> list[IndexEntry]:
    return [
        IndexEntry(f"{index:06d}", f"{index:06d}.png", "", None if labels is None else labels[index])
        for index in range(count)
    ]


def _npz_labels(path: Path, count: int) -> list[int] | None:
    names = npz_names(path)
    name = next((name for name in ("labels", "arr_1") if name in names), None)
    if name is None:
        return None
    labels = read_npz_array(path, name)
    if labels.dtype.kind not in "iu" or labels.shape != (count,) or labels.min() < 0 or labels.max() >= NUM_LABELS:
        raise BadSamples(
            f"{path}: {name!r} is {labels.shape} {labels.dtype}, not {count} class numbers from 0; "
            "save one integer label per image, or leave the array out."
        )
    return [int(label) for label in labels]


def _file_entry(relative: str, file: Path) -> IndexEntry:
    problem = relative_path_problem(relative)
    if problem or not relative.isprintable():
        raise BadSamples(f"{file}: the path {problem or 'has unprintable characters'}; rename the file.")
    return IndexEntry(relative, relative if relative.endswith(".png") else f"{relative}.png", "")


# --- files -----------------------------------------------------------------------------------------------------------


def _image_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise BadSamples(f"{folder}: is not a folder; give a folder of images, or an .npz file.")
    found = find_images(folder, error=BadSamples)
    found.refuse_others(folder, BadSamples)
    if not found.taken:
        raise BadSamples(f"{folder}: has no images ({', '.join(IMAGE_SUFFIXES)}); give the folder that holds them.")
    return [folder / name for name in found.taken]


def _requested_files(folder: Path, requests: RequestSet) -> list[Path]:
    files = [folder / request.path for request in requests]
    missing = [file for file in files if not file.is_file()]
    if missing:
        raise BadSamples(
            f"{missing[0]}: is missing, with {len(missing) - 1} more of {len(files)}; "
            "draw each image to the path its request names."
        )
    return files


def _file_batches(files: Sequence[Path], image_size: int) -> Iterator[np.ndarray]:
    def read(file: Path) -> np.ndarray:
        image_u8 = read_any_image(file)
        if image_u8.shape[:2] != (image_size, image_size):
            raise BadSamples(
                f"{file}: is {image_u8.shape[1]}x{image_u8.shape[0]} pixels where the first image has {image_size}x"
                f"{image_size}; bring all images to one size."
            )
        return image_u8

    with ThreadPoolExecutor(num_threads()) as pool:
        for start in range(0, len(files), _BATCH):
            yield np.stack(list(pool.map(read, files[start : start + _BATCH])))


def _side(file: Path) -> int:
    height, width, _ = read_any_image(file).shape
    if height != width:
        raise BadSamples(f"{file}: is {width}x{height} pixels; crop the images to squares of one size.")
    return height
