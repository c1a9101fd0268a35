"""Folders as the original scorers lay them out: adopted as sample sets, and written for those scorers.

A layout is data (`layouts:` in a benchmark.yaml): where the images of a prompt are, whether a prompt's file beside them
says what was asked for, and whether one picture holds several images as a grid.
"""

from __future__ import annotations

import dataclasses
import json
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from harness.contract.adopt import adopted, claim_out
from harness.contract.assemble import assemble
from harness.contract.errors import BadSamples, EnvironmentFailure, UserError
from harness.contract.fields import Text, Within, build
from harness.contract.files import PathLike, as_read_back, finite, read_json, safe_join, write_atomically
from harness.contract.grid import cut_grid, make_grid
from harness.contract.images import encode_png, read_any_image
from harness.contract.parse import decode_utf8, parse_json
from harness.contract.progress import Progress
from harness.contract.requests import Request, RequestSet, SamplingProtocol, prompt_item
from harness.contract.samples import Form, IndexEntry, SampleSet
from harness.contract.walk import IMAGE_SUFFIXES, ImageFiles, find_images

_BATCH = 32
_PLACES = {"item": r"(?P<item>[^/]+)", "index": r"(?P<index>\d+)", "repeat": r"(?P<repeat>\d+)"}


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where the images of a prompt suite are in a folder."""

    images: Text
    """Path of an image, by `str.format` from item, index (of the prompt, from 0) and repeat. Numbers of any width are
    read, and any kind of image file."""
    metadata: Text | None = None
    """Path of a file per prompt with one JSON object that has a field `prompt`: the folder then states its own prompts.
    None: the prompts come from the request set."""
    grid: Annotated[int, Within(1, 5)] = 1
    """Images along a side of a picture: 2 for a 2x2 grid of a prompt's first four."""
    repeats: Annotated[int, Within(1)] | None = None
    """How many images of a prompt count (the first ones); the rest are strays. None: all."""

    def __post_init__(self) -> None:
        try:
            self.pattern.fullmatch(self.path("item", 0, 0))  # both raise on an unknown field
        except (KeyError, IndexError, ValueError) as error:
            raise ValueError(
                f"images is {self.images!r}, which cannot be filled in ({error}); use {{item}}, {{index}}, {{repeat}}"
            ) from error

    def path(self, item: str, index: int, repeat: int) -> str:
        """Where one image, or the grid of a prompt, is."""
        return self.images.format(item=item, index=index, repeat=repeat)

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """What such a path looks like."""
        return self._pattern("(?:" + "|".join(map(re.escape, IMAGE_SUFFIXES)) + ")")

    def has_place_for(self, relative: str) -> bool:
        """Whether a path would be that of an image of a prompt if only its suffix, or the lack of one, were another."""
        return self._pattern(r"(?:\.[^./]*)?").fullmatch(relative) is not None

    def _pattern(self, suffix: str) -> re.Pattern[str]:
        parts = re.split(r"\{(\w+)[^}]*\}", self.images.removesuffix(".png"))
        text = "".join(_PLACES[part] if place % 2 else re.escape(part) for place, part in enumerate(parts))
        return re.compile(text + suffix, re.IGNORECASE)

    @classmethod
    def from_mapping(cls, row: Any, where: str) -> Layout:
        """A layout from its YAML or JSON object.

        Raises:
            UserError: a field is missing, unknown or wrong.
        """
        return build(cls, row, where)


@dataclass(frozen=True, kw_only=True)
class Suite:
    """The benchmark a folder's images are for, where the folder states its own prompts."""

    benchmark: Text
    version: Annotated[int, Within(0)]
    protocol: SamplingProtocol


@dataclass(frozen=True, kw_only=True)
class _LayoutFile(Suite):
    """The file that a plan passes to `adopt --layout FILE`."""

    layout: Layout


@dataclass(frozen=True, kw_only=True)
class _Picture:
    """One file of a folder, and the requests its images were drawn for."""

    path: Path
    requests: tuple[Request, ...]


# --- adopting --------------------------------------------------------------------------------------------------------


def sample_set_from_layout(
    path: PathLike,
    out_dir: PathLike,
    layout: Layout,
    *,
    suite: Suite,
    requests: RequestSet | None = None,
    form: Form = "png",
    progress: Progress | None = None,
) -> SampleSet:
    """Adopt a folder that was made for the original scorer of a prompt suite.

    Prompts without images are left out (the scorer's record says how many images went in), and so are files that
    belong to no prompt; the manifest counts both. The image size is that of the files.

    Args:
        path: the folder.
        out_dir: the folder of the new sample set.
        layout: how it is laid out.
        suite: the benchmark the images are for.
        requests: its request set; may be None when the layout's metadata files say what was asked for.
    Raises:
        BadSamples: no image is where the layout says, or one is damaged or of another size.
    """
    path = Path(path)
    if not path.is_dir():
        raise BadSamples(f"{path}: is not a folder; give the folder that holds {layout.images}.")
    pictures, strays = _find_pictures(path, layout, suite, requests)
    if not pictures:
        raise BadSamples(
            f"{path}: has no image at {layout.images} that belongs to a prompt; give the folder that holds them, or "
            "another --layout."
        )
    side = _tile_side(pictures[0].path, layout)
    answered = RequestSet(
        benchmark=suite.benchmark,
        version=suite.version,
        protocol=dataclasses.replace(suite.protocol, image_size=side),
        requests=[request for picture in pictures for request in picture.requests],
    )
    missing = len(set(_ids(requests)) - set(_ids(answered))) if requests else 0
    generator = {**adopted(path), "layout": layout.images, "missing": missing, "strays": strays}
    claim_out(Path(out_dir), form)
    return assemble(
        Path(out_dir),
        form=form,
        image_size=side,
        entries=[IndexEntry(request.id, request.path, "") for request in answered],
        batches=_batches(pictures, layout, side),
        requests=answered,
        generator=as_read_back(generator, "generator"),
        progress=progress,
    )


def _find_pictures(
    folder: Path, layout: Layout, suite: Suite, requests: RequestSet | None
) -> tuple[list[_Picture], int]:
    """The pictures in the order of the prompts, and how many files belong to no prompt."""
    known = _requests_by_item(requests) if requests else {}
    item_at = {_index(item, place): item for place, item in enumerate(known)}
    index_of = {item: index for index, item in item_at.items()}
    found: dict[tuple[int, str, int], _Picture] = {}
    strays = 0
    for relative in _images(folder, layout):
        match = layout.pattern.fullmatch(relative)
        if match is None:
            continue  # not an image of a prompt, such as an overview grid
        named = {name: text for name, text in match.groupdict().items() if text is not None}
        index, repeat = int(named.get("index", 0)), int(named.get("repeat", 0))
        item = named.get("item") or item_at.get(index, f"{index:05d}")
        index = index_of.get(item, index)
        asked = _asked(folder, layout, suite, item, index, known)
        if asked is None or (layout.repeats is not None and repeat >= layout.repeats):
            strays += 1
            continue
        place = (index, item, repeat)
        picture = _picture(folder / relative, layout, asked, item, index, repeat)
        other = found.setdefault(place, picture)
        if other is not picture:
            raise BadSamples(f"{picture.path}: is for the same image as {other.path}; remove one of the two.")
    return [found[place] for place in sorted(found)], strays


def _images(folder: Path, layout: Layout) -> list[str]:
    """The images in `folder`; those of kinds that nobody reads are refused where the layout has a place for them."""
    found = find_images(folder, error=BadSamples)
    others = [name for name in found.others if layout.has_place_for(name)]
    ImageFiles(found.taken, others).refuse_others(folder, BadSamples)
    return found.taken


def _asked(
    folder: Path, layout: Layout, suite: Suite, item: str, index: int, known: Mapping[str, Sequence[Request]]
) -> list[Request] | None:
    """The requests of a prompt, by repeat; None when the prompt is unknown."""
    if layout.metadata is not None:
        file = folder / layout.metadata.format(item=item, index=index)
        if file.is_file():
            meta = _read_metadata(file)
            _require_prompt(meta["prompt"], known.get(item), suite, file)
            return [Request(id=f"{suite.benchmark}/{item}/0", prompt=meta["prompt"], seed=0, path="0.png", meta=meta)]
    return list(known[item]) if item in known else None


def _require_prompt(prompt: str, asked: Sequence[Request] | None, suite: Suite, file: Path) -> None:
    """Refuse the folder of another suite: geneval and geneval_long, for example, number different prompts alike."""
    if asked and asked[0].prompt != prompt:
        raise BadSamples(
            f"{file}: has the prompt {_shown(prompt)} where {suite.benchmark} has {_shown(asked[0].prompt)}; score the "
            "folder with the benchmark that its prompts belong to."
        )


def _shown(prompt: str | None) -> str:
    return repr(textwrap.shorten(prompt or "", 60, placeholder=" ..."))


def _read_metadata(file: Path) -> dict[str, Any]:
    try:
        lines = [line for line in decode_utf8(file.read_bytes()).split("\n") if line.strip()]
        (meta,) = (parse_json(line, strict=False) for line in lines)
        if not isinstance(meta["prompt"], str):
            raise TypeError("'prompt' is not text")
    except OSError as error:
        raise EnvironmentFailure(f"{file}: cannot be read ({error.strerror}); check its permissions.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise BadSamples(
            f"{file}: is not one JSON object with a 'prompt' ({error}); copy the prompt's line into it."
        ) from error
    return dict(finite(meta))


def _picture(file: Path, layout: Layout, asked: Sequence[Request], item: str, index: int, repeat: int) -> _Picture:
    """A file and what it answers: one request, or as many as its grid has room for."""
    count = min(layout.grid**2, len(asked)) if layout.grid > 1 else 1
    requests = []
    for number in range(repeat, repeat + count):
        model = asked[number] if number < len(asked) else asked[0]
        # A repeat beyond those requested still counts as an image; its seed is unknown.
        benchmark = model.id.partition("/")[0]
        path = f"{item}/{number}.png" if layout.grid > 1 else layout.path(item, index, number)
        requests.append(dataclasses.replace(model, id=f"{benchmark}/{item}/{number}", path=path))
    return _Picture(path=file, requests=tuple(requests))


def _tile_side(file: Path, layout: Layout) -> int:
    height, width, _ = read_any_image(file).shape
    if height != width or height % layout.grid:
        raise BadSamples(
            f"{file}: is {width}x{height} pixels, which is not {layout.grid}x{layout.grid} square images; "
            "draw it again, or give another --layout."
        )
    return height // layout.grid


def _batches(pictures: Sequence[_Picture], layout: Layout, side: int) -> Iterator[np.ndarray]:
    waiting: list[np.ndarray] = []
    for picture in pictures:
        image_u8 = read_any_image(picture.path)
        if image_u8.shape[:2] != (side * layout.grid, side * layout.grid):
            raise BadSamples(
                f"{picture.path}: is {image_u8.shape[1]}x{image_u8.shape[0]} pixels where the first picture has "
                f"{side * layout.grid}x{side * layout.grid}; bring all pictures to one size."
            )
        waiting += cut_grid(image_u8, layout.grid, len(picture.requests))
        while len(waiting) >= _BATCH:
            yield np.stack(waiting[:_BATCH])
            waiting = waiting[_BATCH:]
    if waiting:
        yield np.stack(waiting)


# --- writing ---------------------------------------------------------------------------------------------------------


def write_layout(samples: SampleSet, out_dir: PathLike, layout: Layout, progress: Progress | None = None) -> int:
    """Write a sample set as the original scorer expects it, and return the number of pictures.

    Raises:
        BadSamples: the samples have no prompts.
        UserError: a prompt has several images and the layout has room for one.
    """
    out, written = Path(out_dir), 0
    if samples.requests is None or samples.requests.is_class_conditional:
        raise BadSamples(f"{samples.folder}: has no prompts, so it cannot be laid out for a prompt suite's scorer.")
    by_item = _requests_by_item(samples.requests)
    place_of = {request.id: place for place, request in enumerate(samples.requests)}
    for place, (item, requests) in enumerate(by_item.items()):
        index = _index(item, place)
        images_u8 = samples.images([place_of[request.id] for request in requests])
        pictures = dict(zip(map(_repeat, requests), images_u8, strict=True))
        if layout.grid > 1:
            pictures = {0: _grid_of(pictures, layout.grid)}
        if len(pictures) > 1 and "{repeat" not in layout.images:
            raise UserError(
                f"{samples.folder}: {item!r} has {len(pictures)} images, but {layout.images} has room for one."
            )
        for repeat, picture_u8 in pictures.items():
            with write_atomically(safe_join(out, layout.path(item, index, repeat))) as handle:
                handle.write(encode_png(picture_u8))
        if layout.metadata is not None:
            with write_atomically(safe_join(out, layout.metadata.format(item=item, index=index)), "w") as handle:
                handle.write(json.dumps(dict(requests[0].meta), ensure_ascii=False) + "\n")
        written += len(pictures)
        if progress:
            progress.advance(len(images_u8))
    return written


def _grid_of(pictures: Mapping[int, np.ndarray], grid: int) -> np.ndarray:
    """A prompt's images at their places; one that is missing is black."""
    black_u8 = np.zeros_like(next(iter(pictures.values())))
    return make_grid([pictures.get(repeat, black_u8) for repeat in range(grid**2)], grid)


# --- helpers ---------------------------------------------------------------------------------------------------------


def read_layout(path: PathLike) -> tuple[Layout, Suite]:
    """Read the file that a plan passes to `adopt --layout FILE`: the layout, and the benchmark the folder is for."""
    row = build(_LayoutFile, read_json(path), str(path))
    return row.layout, Suite(benchmark=row.benchmark, version=row.version, protocol=row.protocol)


def _requests_by_item(requests: RequestSet) -> dict[str, list[Request]]:
    """Prompt -> its requests by repeat, in the order of the set."""
    by_item: dict[str, list[Request]] = {}
    for request in requests:
        by_item.setdefault(prompt_item(request), []).append(request)
    return by_item


def _index(item: str, place: int) -> int:
    """The index of a prompt: its name where that is a number (as for prompts without a name), else its position."""
    return int(item) if re.fullmatch(r"\d{5}", item, re.ASCII) else place


def _repeat(request: Request) -> int:
    """Which image of its prompt a request is for, from 0: the end of its id."""
    number = request.id.rpartition("/")[2]
    if not number.isdecimal():
        raise BadSamples(f"{request.id}: does not end in the number of an image of a prompt; make the requests again.")
    return int(number)


def _ids(requests: RequestSet) -> list[str]:
    return [request.id for request in requests]
