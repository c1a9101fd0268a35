"""`harness freeze`, `verify`: a record that a repository can keep, and whether it still holds."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import click
from rich.text import Text

from harness import api
from harness.catalog.benchmarks import Catalog
from harness.catalog.project import find_project
from harness.cli.base import Command, assignment, err, out, runs_option, say
from harness.contract.digest import sha256_file
from harness.contract.errors import EXIT_DEFECT, UserError
from harness.reproduce.frozen import FROZEN_FILE
from harness.reproduce.frozen import freeze as write_frozen
from harness.reproduce.verify import Finding
from harness.reproduce.verify import verify as look_at
from harness.running.setting import make_setting

_STYLES = {"same": "green", "changed": "bold red", "not checked": "yellow"}
_WIDTH = 2 + max(map(len, _STYLES))


@click.command(cls=Command)
@click.argument("run")
@click.option("--out", "out_path", type=click.Path(path_type=Path), required=True, help="The folder to make.")
@click.option("--samples", is_flag=True, help="Take the images along; their digests always are.")
@runs_option
def freeze(run: str, out_path: Path, samples: bool, runs_dir: Path) -> None:
    """Write the small folder of a run that a repository keeps.

    It has record, scores, items, locks, and the digests of assets and images. `verify` and `check --against` need
    nothing else.

    \b
      harness freeze first --out results/first
      harness verify results/first
    """
    found = api.load_run(run, runs_dir)
    changed = [row for row in _look(found.folder, {}) if row.verdict == "changed"]
    if changed:
        raise UserError(
            f"{found.folder}: {changed[0].what} has changed since the run ({changed[0].why}); run the same command "
            "again, and freeze that."
        )
    say(write_frozen(found, out_path, find_project(), samples=samples))
    _print_digest(out_path)


@click.command(cls=Command)
@click.argument("record")
@runs_option
@click.option(
    "--asset", "assets", multiple=True, callback=assignment, metavar="NAME=PATH", help="Use this file for an asset."
)
@click.option("--json", "as_json", is_flag=True, help="Every finding as JSON.")
def verify(record: str, runs_dir: Path, assets: dict[str, str], as_json: bool) -> None:
    """Compute the digests and metrics of a run or a frozen folder again.

    Without a scorer, a GPU or a network: pixels, requests, items, scores, and every metric that follows from the items.
    Exit status 1 when anything has changed.
    """
    folder = api.find_run(record, runs_dir)  # a record that cannot be read is a finding, too
    found = list(_look(folder, assets))
    if as_json:
        say(json.dumps([vars(row) for row in found], indent=2))
    else:
        _print(found)
        _print_digest(folder)
    if any(row.verdict == "changed" for row in found):
        sys.exit(EXIT_DEFECT)


def _look(folder: Path, assets: dict[str, str]) -> list[Finding]:
    project = find_project()
    catalog = Catalog.load(project)
    here = make_setting(project, catalog, assets=assets).assets
    return list(look_at(folder, catalog.benchmarks, here.path_if_here))


def _print(found: list[Finding]) -> None:
    for row in found:
        why = f": {row.why}" if row.why else ""
        out.print(Text.assemble((f"{row.verdict:<{_WIDTH}}", _STYLES[row.verdict]), row.what, why), soft_wrap=True)
    counts = Counter(str(row.verdict) for row in found)
    said = ", ".join(f"{counts[verdict]} {verdict}" for verdict in _STYLES if counts[verdict])
    err.print(Text(f"{said}.", _STYLES["changed" if counts["changed"] else "same"]))


def _print_digest(folder: Path) -> None:
    """What a paper can state: the digest of the one file that has all others."""
    if (folder / FROZEN_FILE).is_file():
        err.print(Text(f"sha256 of {FROZEN_FILE}: {sha256_file(folder / FROZEN_FILE)}", "dim"), soft_wrap=True)
