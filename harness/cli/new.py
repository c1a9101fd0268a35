"""`harness new`."""

from __future__ import annotations

import click

from harness.cli.base import Group


@click.group(cls=Group)
def new() -> None:
    """Make the skeleton of something to fill in."""
