"""`harness assets` and `harness images`: fetches and builds beforehand what runs need from outside."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click
from rich.filesize import decimal
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Table
from rich.text import Text

from harness import api
from harness.catalog.assets import Asset, AssetStore
from harness.catalog.benchmarks import Catalog
from harness.catalog.fetch import Fetcher
from harness.catalog.project import find_project
from harness.cli.base import Command, Group, assignment, err, out, plain_table, runtime_option, say
from harness.contract.digest import sha256_file
from harness.contract.errors import EnvironmentFailure, MissingAsset, UserError
from harness.planning.generators import plugins_with_assets
from harness.running.setting import make_setting

_ASKED_AT_ONCE = 8

replace_option = click.option(
    "--replace", is_flag=True, help="Accept a new file in place of the first one, where the list has no digest."
)


@click.group(cls=Group)
def assets() -> None:
    """Fetch and check weights, prompts and reference files.

    \b
      harness assets ls
      harness assets pull --suite t2i               everything that the suite reads
      harness assets pull adm-inception-graph       or: --benchmark adm, or --all
      harness assets import FILE                    obtained another way; checked as well
    """


def _of_generators(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the option of every generator that is made of assets."""
    for plugin in plugins_with_assets().values():
        option = plugin.options[0]
        command = click.option(
            option.flag, option.name, multiple=True, metavar=option.metavar, help=f"Those of: {option.help}"
        )(command)
    return command


@assets.command("ls")
@click.option("--suite", "suites", multiple=True, help="Those of a suite.")
@click.option("--benchmark", "benchmarks", multiple=True, help="Those of a benchmark.")
@_of_generators
def assets_ls(suites: tuple[str, ...], benchmarks: tuple[str, ...], **made: tuple[str, ...]) -> None:
    """List assets: whether each is here, what needs it, and whether its licence allows commercial use."""
    catalog, store = _assets()
    chosen = [*_chosen(catalog, suites, benchmarks), *_behind(made)]
    if not (suites or benchmarks or any(made.values())):
        chosen = list(catalog.assets)
    out.print(_table([catalog.asset(name) for name in chosen], store))


@assets.command("pull")
@click.argument("names", nargs=-1)
@click.option("--suite", "suites", multiple=True, help="Fetch everything the benchmarks of a suite need.")
@click.option("--benchmark", "benchmarks", multiple=True, help="Fetch everything a benchmark needs.")
@_of_generators
@click.option("--all", "everything", is_flag=True, help="Fetch every asset.")
@click.option("--mirror", metavar="DIR|URL", help="A copy of another machine's asset store, asked first.")
@click.option("--dry-run", is_flag=True, help="Say what would be fetched, and how much.")
@replace_option
def assets_pull(
    names: tuple[str, ...],
    suites: tuple[str, ...],
    benchmarks: tuple[str, ...],
    everything: bool,
    mirror: str | None,
    dry_run: bool,
    replace: bool,
    **made: tuple[str, ...],
) -> None:
    """Fetch assets and check them; continues partial downloads.

    \b
      harness assets pull --suite t2i --dry-run     what, how much, under which licences
      harness assets pull --suite t2i
      harness assets pull --suite t2i --mirror /mnt/other/.cache/gear-harness/assets

    Files of the Hugging Face hub come from HF_ENDPOINT if it is set, with the token of HF_TOKEN or `hf auth login`. An
    asset that cannot be fetched does not stop the others; it is reported at the end, with exit status 4 or 6.
    """
    catalog, store = _assets()
    chosen = list(catalog.assets) if everything else [*names, *_chosen(catalog, suites, benchmarks), *_behind(made)]
    if not chosen:
        raise UserError("Say what to fetch: names, --suite, --benchmark or --all. List them: harness assets ls")
    asked = [catalog.asset(name) for name in dict.fromkeys(chosen)]
    fetcher = Fetcher(store, mirror)
    wanted = [asset for asset in asked if replace or not store.holds(asset)]
    with err.status("asking for the sizes"), ThreadPoolExecutor(_ASKED_AT_ONCE) as pool:
        sizes = dict(zip((asset.name for asset in wanted), pool.map(fetcher.size, wanted), strict=True))
    if wanted:
        err.print(_table(wanted, store, sizes))
    err.print(_total(asked, sizes), markup=False)
    if not dry_run:
        _fetch(fetcher, wanted, sizes, replace=replace)


def _chosen(catalog: Catalog, suites: Iterable[str], benchmarks: Iterable[str]) -> list[str]:
    """Names of the assets that suites and benchmarks need."""
    of_suites = [benchmark for name in suites for benchmark in catalog.suite(name)]
    needing = [*of_suites, *map(catalog.benchmark, benchmarks)]
    return list(dict.fromkeys(name for benchmark in needing for name in benchmark.needed_assets))


def _behind(made: Mapping[str, Iterable[str]]) -> list[str]:
    """Names of the assets behind values of the generators' options."""
    plugins = plugins_with_assets()
    needed = [
        asset for name, values in made.items() for value in values for asset in plugins[name].needed_assets(value)
    ]
    return [asset.name for asset in needed]


def _table(assets: Iterable[Asset], store: AssetStore, sizes: Mapping[str, int | None] | None = None) -> Table:
    table = plain_table("", "asset", "used by", "size", "licence", "commercial")
    for asset in assets:
        here = Text("✓", "green") if store.is_here(asset) else Text("–", "dim")
        size = (sizes or {}).get(asset.name, asset.size)
        terms = f" (accept its terms first: {asset.gated})" if asset.gated else ""
        shown = "" if size is None else decimal(size)
        licence = Text(f"{asset.licence or ''}{terms}")
        table.add_row(here, asset.name, ", ".join(asset.used_by), shown, licence, asset.commercial)
    return table


def _total(asked: Sequence[Asset], sizes: Mapping[str, int | None]) -> str:
    """A line such as "3 of 27 assets to fetch, 1.2 GB (and 1 of unknown size)"."""
    unknown = sum(size is None for size in sizes.values())
    more = f" (and {unknown} of unknown size)" if unknown else ""
    known = decimal(sum(size or 0 for size in sizes.values()))
    what = f"{len(sizes)} of {len(asked)} assets to fetch"
    return f"{what}, {known}{more}" if sizes else f"all {len(asked)} assets are here"


def _fetch(fetcher: Fetcher, wanted: Iterable[Asset], sizes: Mapping[str, int | None], *, replace: bool) -> None:
    problems: list[MissingAsset | EnvironmentFailure] = []
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=err) as bars:
        for asset in wanted:
            task = bars.add_task(asset.name, total=sizes.get(asset.name))

            def moved(done: int, total: int | None, task: Any = task) -> None:
                bars.update(task, completed=done, total=total)

            try:
                say(fetcher.pull(asset, moved, replace=replace))
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
        if not path.exists():
            state = Text("not here", "dim")
        elif store.is_listed(asset):
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
    """Build the scorers' images ahead of their first use."""


@images.command("build")
@click.argument("benchmarks", nargs=-1)
@click.option(
    "--image", "images", multiple=True, callback=assignment, metavar="NAME=IMAGE", help="Use this ready image."
)
@click.option("--base-image", metavar="IMAGE", help="Base image for builds ($BASE_IMAGE).")
@click.option(
    "--runtime",
    type=click.Choice(("docker", "podman")),
    default=lambda: "podman" if os.environ.get("HARNESS_RUNTIME") == "podman" else "docker",
    show_default="docker, or podman where $HARNESS_RUNTIME says so",
    help="Whose images.",
)
def images_build(benchmarks: tuple[str, ...], runtime: str, **options: Any) -> None:
    """Build the images of benchmarks (default: all) if missing.

    \b
      harness images build adm --base-image python:3.11-slim
    """
    _prepare(benchmarks, runtime, **options)


@click.command(cls=Command)
@click.argument("benchmarks", nargs=-1)
@runtime_option
def prepare(benchmarks: tuple[str, ...], runtime: str) -> None:
    """Build scorers' environments or images ahead of time.

    For example for a node without internet; by default for all benchmarks.

    \b
      harness prepare adm geneval
      harness prepare adm-torch              for --set adm.backend=torch
      harness prepare --runtime docker
    """
    _prepare(benchmarks, runtime)


def _prepare(benchmarks: tuple[str, ...], runtime: str, **options: Any) -> None:
    for name, row in api.prepare(*benchmarks, runtime=runtime, say=err.print, **options):
        say(f"{name}: {row.get('image') or row.get('lock') or row['runtime']}")
