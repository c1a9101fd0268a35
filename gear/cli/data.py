"""`gear data`: data sets that come with packages."""

from __future__ import annotations

from pathlib import Path

import click

from gear.cli.base import FOLDER, Group


@click.group(cls=Group)
def data() -> None:
    """Data sets that come with packages."""


@data.command()
@click.option("--out", "out_dir", type=FOLDER, required=True)
def digits(out_dir: Path) -> None:
    """Write the demo's tinted digits with labels, colours and captions: train.npz, held_out.npz, digits.json."""
    from gear.data.digits import write_digits

    click.echo(f"{write_digits(out_dir)}")
