"""`harness new`: skeletons to fill in."""

from __future__ import annotations

import re
from pathlib import Path

import click
import numpy as np

from harness.catalog.project import VARIABLE
from harness.cli.base import Command, Group, say
from harness.contract.errors import UserError

SKELETON = Path(__file__).parent / "skeleton"
PLACEHOLDER = "my_benchmark"
"""The placeholder for the name in the skeleton's files."""


@click.group(cls=Group)
def new() -> None:
    """Write a skeleton to fill in."""


@new.command("benchmark", cls=Command)
@click.argument("name")
@click.option(
    "--in",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("benchmarks"),
    show_default=True,
    help="Folder of benchmarks; created if it does not exist.",
)
def new_benchmark(name: str, folder: Path) -> None:
    """Write a new benchmark that works already, to fill in.

    It measures brightness and passes its gold check.

    \b
      harness new benchmark sharpness --in my-benchmarks
      export HARNESS_BENCHMARKS=my-benchmarks
      harness check sharpness
      harness score sharpness --samples folder/

    Then replace what it measures: interface.py (options and metrics), scorer.py, benchmark.yaml, README.md, check/.
    """
    made = write_benchmark(name, folder)
    say(f"{made}\nTry it:  export {VARIABLE}={folder.resolve()}   then   harness check {name}")


def write_benchmark(name: str, folder: Path) -> Path:
    """Write the skeleton of a benchmark below `folder` and return its folder.

    Raises:
        UserError: the name is not a Python package name, or the folder exists.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise UserError(f"{name}: a benchmark's name has lower-case letters, digits and '_', and begins with a letter.")
    target = folder / name
    if target.exists():
        raise UserError(f"{target}: exists already; choose another name, or remove it.")
    (target / "check").mkdir(parents=True)
    for source in sorted(SKELETON.glob("*.txt")):
        text = source.read_text(encoding="utf-8").replace(PLACEHOLDER, name)
        (target / source.stem).write_text(text, encoding="utf-8")
    levels = np.array([10, 20, 30, 40], np.uint8)
    np.savez(target / "check" / "samples.npz", arr_0=np.broadcast_to(levels[:, None, None, None], (4, 64, 64, 3)))
    return target
