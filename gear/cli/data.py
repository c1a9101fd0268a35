"""`gear data`: inspect training data before a run, and write the demo's."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import click

from gear.cli.base import FOLDER, Group
from harness.contract.errors import UserError


@click.group(cls=Group)
def data() -> None:
    """Inspect training data, or write the demo's."""


@data.command()
@click.option("--out", "out_dir", type=FOLDER, required=True)
def digits(out_dir: Path) -> None:
    """Write the demo's tinted digits to files.

    The files are train.npz, held_out.npz and digits.json, with labels, colours and captions.
    """
    from gear.data.digits import write_digits

    click.echo(f"{write_digits(out_dir)}")


@data.command()
@click.argument("place")
@click.option("--workers", type=click.IntRange(min=0), help="Helper processes; default: up to 16, for many shards.")
def index(place: str, workers: int | None) -> None:
    """Index tar shards ahead of the first run on them.

    PLACE is a folder, a .tar, or a quoted pattern. Prints what the shards hold. The index is kept in $GEAR_CACHE
    (default ~/.cache/gear) until a shard changes.
    """
    from gear.data.shard_index import Problem, build_indices, load_index
    from gear.data.shards import find_shards

    shards = find_shards(place)
    build_indices(shards, workers)
    found: Counter[int] = Counter()
    for shard in shards:
        found.update(load_index(shard)["problem"].tolist())
    click.echo(f"{len(shards)} shards, {found.pop(Problem.NONE, 0)} usable samples")
    for problem, count in sorted(found.items()):
        click.echo(f"{count} samples cannot be used: {Problem(problem).sentence}")


@data.command()
@click.argument("place")
@click.option("--kind", default="auto", show_default=True, help="As data.kind; auto detects it.")
@click.option("--count", type=click.IntRange(min=0), default=3, show_default=True, help="Samples to show.")
def look(place: str, kind: str, count: int) -> None:
    """Show the kind and size of training data, and some samples.

    PLACE is anything that --data-dir takes. Samples are shown by their labels and captions, classes by their names;
    notes say what training would refuse: no captions, or `train` and `val` for classes.
    """
    import dataclasses

    import numpy as np

    from gear.data.base import BadSample
    from gear.data.conditioning import class_names, require_captions, splits_note
    from gear.data.detect import detect_kind
    from gear.data.sources import DataConfig, open_source

    config = DataConfig(data_dir=place, image_size=32, num_classes=1_000_000, kind=kind)  # type: ignore[arg-type]
    if kind == "auto":
        config = dataclasses.replace(config, kind=detect_kind(place))
    source = open_source(config)
    click.echo(f"{config.kind}: {len(source)} samples")
    names = class_names(source)
    if names:
        click.echo(f"{len(names)} classes: {', '.join(names[:20])}{', ...' if len(names) > 20 else ''}")
    if note := splits_note(names):
        click.echo(f"note: {note}")
    labelled = False
    for number in np.linspace(0, len(source) - 1, min(count, len(source)), dtype=int):
        try:
            sample = source.item(int(number), np.random.default_rng(0))
            labelled |= sample.label is not None
            named = f" ({names[sample.label]})" if names and sample.label is not None else ""
            shown = f"class {sample.label}{named}" if sample.caption is None else repr(sample.caption[:100])
        except BadSample as problem:
            shown = f"cannot be used: {problem}"
        click.echo(f"  {number}: {shown}")
    if not labelled:
        try:
            require_captions(source)
        except UserError as problem:
            click.echo(f"note: {problem}")
