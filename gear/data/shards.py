"""Images with captions in tar shards: GPIC and BLIP3o.

The published training streams shards through a shuffle buffer, so its order depends on the number of processes and
workers and it cannot resume in the middle. Here shards are indexed once and read at random like any other data set:
the order is the same for any number of processes, and a run resumes exactly where it stopped. The price is a seek per
sample.

Why not the packages `webdataset` and `wids`: webdataset only streams, so it has no sample number i to resume at. wids
reads by index, but wants a list of all shards with their sample counts beforehand and builds the index of a shard as
Python objects in every worker, where the index files here are made on first use and mapped by all workers together.
"""

from __future__ import annotations

import json
import os
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from gear.data.base import BadSample, Sample
from gear.data.images import open_rgb, training_image
from gear.data.shard_index import Problem, build_indices, load_index
from harness.contract.errors import UserError
from harness.contract.parse import is_unicode
from harness.contract.walk import files_in, is_data

ShardKind = Literal["gpic", "blip3o"]

_OPEN_FILES = 64


class ShardSource:
    """The samples of several shards, in the order of the shards' names and of their members.

    Images are resized (short side), centre-cropped and mirrored; of truncated images, the part that exists is used.
    """

    def __init__(
        self, shards: Sequence[Path], kind: ShardKind, image_size: int, *, train: bool = True, random_hflip: bool = True
    ) -> None:
        build_indices(shards)
        self.shards, self.image_size, self.random_hflip = list(shards), image_size, train and random_hflip
        self.kind = kind
        self._text_member, self._caption = CAPTIONS[kind]
        self._ends = np.cumsum([len(load_index(shard)) for shard in shards])
        if not self._ends[-1]:
            raise UserError(f"{shards[0].parent} holds shards without samples; check data_dir.")
        self._indices, self._files = _Indices(_OPEN_FILES), _Files(_OPEN_FILES)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def item(self, index: int, rng: np.random.Generator) -> Sample:
        number = int(np.searchsorted(self._ends, index, side="right"))
        shard = self.shards[number]
        row = self._indices.of(shard)[index - int(self._ends[number])]  # counted from the shard's end
        try:
            problem = Problem(row["problem"])
            if problem != Problem.NONE:
                raise BadSample(problem.sentence)
            text = self._files.read(shard, row[f"{self._text_member}_offset"], row[f"{self._text_member}_size"])
            caption = self._caption(text) if text is not None else ""
            content = self._files.read(shard, row["image_offset"], row["image_size"]) or b""
            image = open_rgb(content, accept_truncated=True, drop_alpha=True)
            pixels = training_image(image, self.image_size, rng, crop="center", random_hflip=self.random_hflip)
        except BadSample as error:
            raise BadSample(f"{shard}, sample {os.fsdecode(row['key'])}: {error}") from None
        return Sample(pixels, caption=caption)


def gpic_caption(content: bytes) -> str:
    """The `caption` of GPIC's JSON; empty where it is missing or null. Other captions and their types are ignored."""
    try:
        caption = json.loads(content).get("caption")
    except (ValueError, AttributeError, RecursionError) as error:
        raise BadSample(f"its JSON cannot be read ({error})") from None
    if caption is not None and not isinstance(caption, str):
        raise BadSample(f"its caption is not text but {type(caption).__name__}")
    if caption is not None and not is_unicode(caption):
        raise BadSample("its caption holds half of a surrogate pair")
    return caption or ""


def blip3o_caption(content: bytes) -> str:
    """BLIP3o's text member; a byte-order mark, and bytes that are not UTF-8, are left out."""
    text = content.decode("utf-8", errors="ignore").removeprefix("\ufeff")
    if "\0" in text:
        raise BadSample("its caption holds NUL characters, as UTF-16 does")
    return text


CAPTIONS: Mapping[ShardKind, tuple[str, Callable[[bytes], str]]] = {
    "gpic": ("json", gpic_caption),
    "blip3o": ("txt", blip3o_caption),
}
"""Kind -> (suffix of the member with the caption, how to read it)."""


def find_shards(place: str) -> list[Path]:
    """A folder's *.tar, the files of a pattern, or a single .tar, sorted by name.

    Raises UserError when there are none.
    """
    path = Path(place)
    if path.is_dir():
        found = files_in(path, ".tar")
    elif path.is_file():
        found = [path]
    else:
        root = Path(path.anchor)
        matching = root.glob(str(path.relative_to(root)))
        found = sorted(file for file in matching if file.suffix == ".tar" and file.is_file() and is_data(file.name))
    if not found:
        raise UserError(f"no shards (*.tar) at {place}; give a folder, a .tar, or a quoted pattern.")
    return found


class _Indices:
    """Indices of shards; only the most recently used stay mapped, since every mapping holds a file open."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._mapped: OrderedDict[Path, npt.NDArray[np.void]] = OrderedDict()

    def of(self, shard: Path) -> npt.NDArray[np.void]:
        if shard not in self._mapped:
            self._mapped[shard] = load_index(shard)
            if len(self._mapped) > self.limit:
                self._mapped.popitem(last=False)
        self._mapped.move_to_end(shard)
        return self._mapped[shard]

    def __getstate__(self) -> dict[str, Any]:
        return {"limit": self.limit, "_mapped": OrderedDict()}


class _Files:
    """Shards, read at any offset; the most recently used stay open. Each loader process opens its own."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._open: OrderedDict[Path, int] = OrderedDict()

    def read(self, path: Path, offset: int, size: int) -> bytes | None:
        """`size` bytes at `offset`; None where size is negative, for a member that does not exist."""
        if size < 0:
            return None
        try:
            content = os.pread(self._descriptor(path), int(size), int(offset))
        except OSError as error:
            raise BadSample(f"it cannot be read ({error})") from None
        if len(content) != size:
            raise BadSample(f"it ends after {len(content)} of {size} bytes: the shard was cut off")
        return content

    def _descriptor(self, path: Path) -> int:
        if path not in self._open:
            self._open[path] = os.open(path, os.O_RDONLY)
            if len(self._open) > self.limit:
                os.close(self._open.popitem(last=False)[1])
        self._open.move_to_end(path)
        return self._open[path]

    def __getstate__(self) -> dict[str, Any]:
        return {"limit": self.limit, "_open": OrderedDict()}

    def __del__(self) -> None:
        for descriptor in self._open.values():
            os.close(descriptor)
