"""`harness assets` and `harness images`: fetches and builds beforehand what runs need from outside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.filesize import decimal
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.text import Text

from harness import api
from harness.catalog.assets import Asset, AssetStore
from harness.catalog.benchmarks import Catalog
from harness.catalog.project import find_project
from harness.cli.base import Command, Group, assignment, err, out, plain_table, runtime_option, say
from harness.contract.digest import sha256_file
from harness.contract.errors import EnvironmentFailure, MissingAsset, UserError
from harness.running.setting import make_setting

replace_option = click.option(
    "--replace", is_flag=True, help="Accept a new file in place of the first one, where the list has no digest."
)


@click.group(cls=Group)
def assets() -> None:
    """Fetch and check weights, prompts and reference files.

    \b
      harness assets ls
      harness assets pull adm-inception-graph       or: --benchmark adm, or --all
      harness assets import FILE                    obtained another way; checked as well
    """


@assets.command("ls")
def assets_ls() -> None:
    """List every asset, whether it is here, and what needs it."""
    catalog, store = _assets()
    table = plain_table("", "asset", "used by", "size", "licence")
    for asset in catalog.assets.values():
        missing = store.missing([(asset.name, "")])
        here = Text("–", "dim") if missing else Text("✓", "green")
        size = "" if asset.size is None else decimal(asset.size)
        table.add_row(here, asset.name, ", ".join(asset.used_by), size, asset.licence or "")
    out.print(table)


@assets.command("pull")
@click.argument("names", nargs=-1)
@click.option("--benchmark", "benchmarks", multiple=True, help="Fetch everything a benchmark needs.")
@click.option("--all", "everything", is_flag=True, help="Fetch every asset.")
@replace_option
def assets_pull(names: tuple[str, ...], benchmarks: tuple[str, ...], everything: bool, replace: bool) -> None:
    """Fetch assets and check them; continues partial downloads.

    An asset that cannot be fetched does not stop the others; it is reported at the end, with exit status 4 or 6.
    """
    catalog, store = _assets()
    of_benchmarks = [asset for name in benchmarks for asset in catalog.benchmark(name).needed_assets]
    chosen = list(catalog.assets) if everything else [*names, *of_benchmarks]
    if not chosen:
        raise UserError("Say what to fetch: names, --benchmark NAME, or --all. List them: harness assets ls")
    problems: list[MissingAsset | EnvironmentFailure] = []
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=err) as bars:
        for name in dict.fromkeys(chosen):
            task = bars.add_task(name, total=None)

            def moved(done: int, total: int | None, task: Any = task) -> None:
                bars.update(task, completed=done, total=total)

            try:
                say(store.pull(catalog.asset(name), moved, replace=replace))
            except (MissingAsset, EnvironmentFailure) as problem:
                problems.append(problem)
    if problems:
        raise type(problems[0])("\n".join(str(problem) for problem in problems))


@assets.command("verify")
@click.argument("names", nargs=-1)
def assets_verify(names: tuple[str, ...]) -> None:
    """Check the assets that are here against the list.

    Exit status 4 when one is wrong."""
    catalog, store = _assets()
    wrong = 0
    for asset in [catalog.asset(name) for name in names] or list(catalog.assets.values()):
        path = store.path(asset)
        if not path.is_file():
            state = Text("not here", "dim")
        elif store.expected_sha256(asset) == sha256_file(path):  # read again, not from the memo: this checks the disk
            state = Text("ok", "green")
        else:
            state, wrong = Text(f"WRONG: {path}", "bold red"), wrong + 1
        out.print(Text.assemble(f"{asset.name}: ", state), soft_wrap=True)
    if wrong:
        raise MissingAsset("Remove the files marked WRONG and fetch them again: harness assets pull NAME")


@assets.command("path")
@click.argument("name")
def assets_path(name: str) -> None:
    """Print the path of an asset."""
    catalog, store = _assets()
    catalog.asset(name)
    say(store.find(name).path)


@assets.command("import")
@click.argument("words", nargs=-1, required=True, metavar="[NAME] FILE")
@replace_option
def assets_import(words: tuple[str, ...], replace: bool) -> None:
    """Import a file obtained another way.

    Without NAME, the asset is identified by the file's name or sha256."""
    catalog, store = _assets()
    if len(words) > 2:
        raise UserError("Give one file, and before it the name of the asset: harness assets import NAME FILE")
    file = Path(words[-1])
    asset = catalog.asset(words[0]) if len(words) == 2 else _guess_asset(catalog, file)
    say(store.bring(asset, file, replace=replace))


def _guess_asset(catalog: Catalog, file: Path) -> Asset:
    digest = sha256_file(file) if file.is_file() else ""
    matches = [asset for asset in catalog.assets.values() if digest and asset.sha256 == digest]
    matches = matches or [asset for asset in catalog.assets.values() if asset.file == file.name]
    if len(matches) != 1:
        raise UserError(f"{file}: it is not clear which asset this is; say so: harness assets import NAME {file}")
    return matches[0]


def _assets() -> tuple[Catalog, AssetStore]:
    project = find_project()
    catalog = Catalog.load(project)
    return catalog, make_setting(project, catalog).assets


# --- images ----------------------------------------------------------------------------------------------------------


@click.group(cls=Group)
def images() -> None:
    """Build the scorers' Docker images ahead of their first use."""


@images.command("build")
@click.argument("benchmarks", nargs=-1)
@click.option(
    "--image", "images", multiple=True, callback=assignment, metavar="NAME=IMAGE", help="Use this ready image."
)
@click.option("--base-image", metavar="IMAGE", help="Base image for builds ($BASE_IMAGE).")
def images_build(benchmarks: tuple[str, ...], **options: Any) -> None:
    """Build the images of benchmarks (default: all) if missing.

    \b
      harness images build adm --base-image python:3.11-slim
    """
    _prepare(benchmarks, "docker", **options)


@click.command(cls=Command)
@click.argument("benchmarks", nargs=-1)
@runtime_option
def prepare(benchmarks: tuple[str, ...], runtime: str) -> None:
    """Build scorers' environments or images ahead of time.

    For example for a node without internet; by default for all benchmarks.

    \b
      harness prepare adm geneval
      harness prepare --runtime docker
    """
    _prepare(benchmarks, runtime)


def _prepare(benchmarks: tuple[str, ...], runtime: str, **options: Any) -> None:
    for name, row in api.prepare(*benchmarks, runtime=runtime, say=err.print, **options):
        say(f"{name}: {row.get('image') or row.get('lock') or row['runtime']}")
