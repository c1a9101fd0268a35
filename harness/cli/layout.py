"""`harness layout`: writes samples as the original scorer of a benchmark expects them."""

from __future__ import annotations

from pathlib import Path

import click

from harness.catalog.benchmarks import Catalog
from harness.catalog.project import find_project
from harness.cli.base import Command, say
from harness.contract.layouts import write_layout
from harness.contract.samples import SampleSet


@click.command("layout", cls=Command)
@click.argument("benchmark")
@click.argument("samples", type=click.Path(exists=True, path_type=Path))
@click.argument("out_dir", type=click.Path(path_type=Path), metavar="OUT")
@click.option("--layout", "name", metavar="NAME", help="Which layout, if there are several.  [default: the first]")
def layout(benchmark: str, samples: Path, out_dir: Path, name: str | None) -> None:
    """Write SAMPLES as the original scorer of BENCHMARK reads them.

    \b
      harness layout geneval runs/RUN/steps/02-sample-geneval/output folder/
      harness layout dpg SAMPLES folder/                  2x2 grids, one per prompt
      harness score geneval --samples folder/ --layout geneval        the other way round
    """
    chosen = Catalog.load(find_project()).benchmark(benchmark)
    chosen_layout = chosen.layout(name or next(iter(chosen.layouts), "NAME"))
    count = write_layout(SampleSet.open(samples), out_dir, chosen_layout)
    say(f"{out_dir}: {count} pictures at {chosen_layout.images}")
