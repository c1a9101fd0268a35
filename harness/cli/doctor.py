"""`harness doctor`: checks before a run whether this machine can carry it out."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.text import Text

from harness import api
from harness.catalog.benchmarks import Benchmark, Catalog
from harness.catalog.project import find_project, home_dir
from harness.cli.base import Command, drawing_options, out, plain_table, setting_options
from harness.cli.setting import take_setting
from harness.contract.errors import EXIT_ENVIRONMENT, EXIT_OK
from harness.planning.generators import given_options, plugins_with_assets
from harness.planning.make import required_variables
from harness.planning.services import named_model
from harness.report.formats import in_words
from harness.running.setting import Setting

_LITTLE_DISK_GB = 20


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of the output."""

    name: str
    ok: bool
    detail: str
    fix: str = ""
    required: bool = True
    """Whether runs fail without it."""


def checks(setting: Setting, home: Path) -> list[Finding]:
    """Everything but the assets, most basic first."""
    runtime = [
        Finding(name=c.name, ok=c.ok, detail=c.detail, fix=c.fix, required=c.required) for c in setting.runtime.checks()
    ]
    version = ".".join(map(str, sys.version_info[:3]))
    return [
        Finding(name="python", ok=True, detail=f"{version} at {sys.executable}"),
        *runtime,
        _home(home),
        _writable("runs", setting.runs_dir, "--runs DIR"),
        _disk(setting.runs_dir),
        _machine(setting),
    ]


def _home(folder: Path) -> Finding:
    """One that others have filled may be read-only: what is in it is used."""
    found = _writable("home", folder, "export HARNESS_HOME=DIR")
    if found.ok or not folder.is_dir():
        return found
    return Finding(name="home", ok=True, detail=f"{folder}, read-only: nothing can be added to what it holds")


def _writable(name: str, folder: Path, fix: str) -> Finding:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        return Finding(name=name, ok=False, detail=f"{folder}: {error.strerror}", fix=f"choose another folder: {fix}")
    return Finding(name=name, ok=True, detail=f"{folder}")


def _disk(folder: Path) -> Finding:
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free_gb = shutil.disk_usage(there).free / 1e9
    ok = free_gb >= _LITTLE_DISK_GB
    fix = "" if ok else "50,000 images of 256 px take 10 GB; free some space, or choose another disk with --runs DIR"
    return Finding(name="disk", ok=ok, detail=f"{free_gb:,.0f} GB free for runs", fix=fix, required=False)


def _machine(setting: Setting) -> Finding:
    machine, ids = setting.scheduler.describe(), setting.scheduler.gpus
    gpus = f"GPU {in_words(ids)}" if ids else "no GPU (drawing and some scorers will be slow)"
    detail = f"{machine['cpus']} cores, {machine['memory_gb']:.0f} GB memory, {gpus}"
    return Finding(name="machine", ok=True, detail=detail)


@click.command(cls=Command)
@click.option("--suite", help="Look at the benchmarks of a suite only, such as c2i.")
@click.option("--benchmark", "benchmarks", multiple=True, help="Look at this benchmark only; may be repeated.")
@drawing_options
@setting_options
def doctor(suite: str | None, benchmarks: tuple[str, ...], assets: Mapping[str, str], **options: Any) -> None:
    """Check this machine: engines, disk, GPUs, missing assets, and a model if one is given.

    \b
      harness doctor --runtime docker
      harness doctor --suite c2i --generator 'python my_model.py'

    Also lists which settings each benchmark still needs.

    Exit status 6 when the chosen runtime cannot be used, 2 when the model cannot draw what the benchmarks ask for.
    """
    project = find_project()
    catalog = Catalog.load(project)
    options["assets"] = assets
    setting = take_setting(options)  # what remains is the generator
    table = plain_table("", "", "")
    findings = checks(setting, home_dir())
    for item in findings:
        mark = Text("✓", "green") if item.ok else Text("✗", "bold red")
        table.add_row(mark, Text(item.name, "bold"), f"{item.detail}\n  → {item.fix}" if item.fix else item.detail)
    out.print(table)
    for benchmark in _chosen(catalog, suite, benchmarks):
        missing = setting.assets.missing((name, benchmark.id) for name in benchmark.needed_assets)
        problems = [str(problem) for problem in missing]
        problems += [
            f"{benchmark.id} needs {name} in the environment: {meaning}"
            for name, meaning in required_variables(benchmark.scorer, judge=named_model(None)).items()
            if not os.environ.get(name)
        ]
        _print_state(benchmark.id, problems)
    given = given_options(options)
    if given:
        if suite or benchmarks:
            api.plan(*benchmarks, suite=suite, assets=assets, **given)
        else:
            api.generator(project, catalog, assets=assets, **given)
        _print_state("generator", _missing_of_generator(given, setting))
    sys.exit(EXIT_OK if all(item.ok or not item.required for item in findings) else EXIT_ENVIRONMENT)


def _missing_of_generator(given: Mapping[str, Any], setting: Setting) -> list[str]:
    plugins = plugins_with_assets()
    needed = [
        (asset.name, value)
        for name, value in given.items()
        if name in plugins
        for asset in plugins[name].needed_assets(value)
    ]
    return [str(problem) for problem in setting.assets.missing(needed)]


def _print_state(name: str, problems: Sequence[str]) -> None:
    state = Text("complete", "green") if not problems else Text(f"{len(problems)} missing", "yellow")
    out.print(Text.assemble((f"{name}: ", "bold"), state))
    for problem in problems:
        out.print(Text(f"  {problem}"), soft_wrap=True)


def _chosen(catalog: Catalog, suite: str | None, benchmarks: Sequence[str]) -> list[Benchmark]:
    if not (suite or benchmarks):
        return list(catalog.benchmarks.values())
    of_suite = catalog.suite(suite) if suite else []
    named = map(catalog.benchmark, benchmarks)
    return list({benchmark.id: benchmark for benchmark in [*of_suite, *named]}.values())
