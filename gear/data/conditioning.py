"""Whether a data set has what a stage is conditioned on: class labels, or captions.

Single missing captions are part of the published data and stay. What is refused is a data set that has none: training
on it fails at nothing and learns no condition.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from gear.data.base import BadSample, ImageSource, Sample
from gear.data.mixture import MixtureSource
from gear.data.shard_index import load_index
from gear.data.shards import ShardSource
from harness.contract.errors import BadSamples, UserError

LOOK_AT = 300
"""Samples of a source that are looked at, evenly over it, until one has what is looked for."""
_SPLITS = {"train", "training", "val", "valid", "validation", "test", "eval", "dev"}


def require_condition(phase: str, source: ImageSource, num_classes: int) -> None:
    """Raise UserError where the samples have no captions (stage t2i), or no labels of `num_classes` (e2e, ar)."""
    if phase == "t2i":
        for part in parts(source):
            require_captions(part)
    elif phase in ("e2e", "ar"):
        for part in parts(source):
            _require_labels(part, num_classes)
        _require_same_classes(parts(source))


def parts(source: ImageSource) -> list[ImageSource]:
    """The single data sets of a mixture."""
    if isinstance(source, MixtureSource):
        return [part for inner in source.sources for part in parts(inner)]
    return [source]


def class_names(source: ImageSource) -> list[str]:
    """The names of the classes in the order of their labels, of each data set; empty where they have none.

    A folder may have any name: what cannot be printed is written as Python does.
    """
    names = [str(name) for part in parts(source) for name in getattr(part, "classes", ())]
    return [name if name.isprintable() else ascii(name) for name in names]


def splits_note(names: Sequence[str]) -> str:
    """A sentence where "classes" look like the splits of a data set, else ""."""
    if len(names) < 2 or not {name.lower() for name in names} <= _SPLITS:
        return ""
    return f"the classes {', '.join(names)} look like the splits of a data set: give one of these folders instead."


def require_captions(source: ImageSource) -> None:
    """Raise UserError where none of the samples that are looked at has a caption; the message says why."""
    problems: list[BadSample] = []
    unsorted = isinstance(source, ShardSource) and _is_unsorted(source.shards[0])
    if not unsorted and any((sample.caption or "").strip() for sample in _looked_at(source, problems)):
        return
    if unsorted:
        why = "the images and texts of a name do not follow each other; pack it again, sorted (tar --sort=name)"
    elif len(problems) == min(LOOK_AT, len(source)):
        why = f"no sample can be used, the first because: {problems[0]}"
    elif isinstance(source, ShardSource):
        why = _why_shard(source)
    else:
        why = "captions come from shards, from IMAGE.txt beside each image, or from a metadata.jsonl"
    raise UserError(f"{_place(source)} holds no captions, which text-to-image training needs: {why}.")


def _looked_at(source: ImageSource, problems: list[BadSample]) -> Iterator[Sample]:
    for index in np.linspace(0, len(source) - 1, min(LOOK_AT, len(source)), dtype=int):
        try:
            yield source.item(int(index), np.random.default_rng(0))
        except BadSample as problem:
            problems.append(problem)


def _place(source: ImageSource) -> Path | str:
    """What the user gave."""
    return source.shards[0] if isinstance(source, ShardSource) else getattr(source, "root", "the data set")


def _is_unsorted(shard: Path) -> bool:
    """Whether most images and texts of a shard lie apart, so that they form samples of their own."""
    index = load_index(shard)
    images, texts = index["image_size"] >= 0, (index["json_size"] >= 0) | (index["txt_size"] >= 0)
    paired = int((images & texts).sum())
    return bool((images & ~texts).sum() > paired and (texts & ~images).sum() > paired)


def _why_shard(source: ShardSource) -> str:
    shard = source.shards[0]
    index = load_index(shard)
    has_json = index["json_size"] >= 0
    if source.kind == "blip3o" and not (index["txt_size"] >= 0).any():
        found = "; its JSON is read with data.kind=gpic" if has_json.any() else ""
        return f"no image has a .txt after it{found or '; put a .txt, or a .json with `caption`, after each image'}"
    if source.kind == "gpic" and not has_json.any():
        return "no image has a .json after it; its .txt is read with data.kind=blip3o"
    if source.kind == "gpic":
        row = index[has_json][0]
        names = _json_fields(shard, int(row["json_offset"]), int(row["json_size"]))
        if "caption" not in names:
            return f"its JSON has no field `caption` (only {', '.join(names) or 'none'}); name it so"
    return "its captions are empty"


def _json_fields(shard: Path, offset: int, size: int) -> list[str]:
    with shard.open("rb") as stream:
        stream.seek(offset)
        try:
            return sorted(map(str, json.loads(stream.read(size))))[:8]
        except (ValueError, TypeError, RecursionError):
            return []


def _require_labels(source: ImageSource, num_classes: int) -> None:
    problems: list[BadSample] = []
    first = next(_looked_at(source, problems), None)
    if first is None:
        raise BadSamples(f"{_place(source)}: no sample can be used, the first because: {problems[0]}; check the data.")
    if first.label is None:
        raise UserError(
            f"{_place(source)} holds no class labels, which the stages e2e and ar need; give class folders or IDX "
            "files, or train on its captions with `gear train t2i`."
        )
    names = class_names(source)
    if names and len(names) != num_classes:
        shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
        raise UserError(
            f"{_place(source)} holds {len(names)} classes ({shown}) but "
            f"data.num_classes is {num_classes}; {splits_note(names) or f'set data.num_classes={len(names)}.'}"
        )


def _require_same_classes(sources: Sequence[ImageSource]) -> None:
    named = [source for source in sources if hasattr(source, "classes")]
    for source in named[1:]:
        if class_names(source) != class_names(named[0]):
            raise UserError(
                f"{_place(named[0])} and {_place(source)} have class folders of different names, so that a label would "
                "mean two things; give them the same folders."
            )
