"""What the commands of `harness` share: how errors end, the options of a run, and what it is made from."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import yaml
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.catalog.assets import AssetStore
from harness.catalog.benchmarks import Catalog
from harness.catalog.project import Project, home_dir
from harness.contract.errors import UserError
from harness.running.setting import Setting
from harness.runtimes import RUNTIMES, RuntimeOptions, make_runtime
from harness.store.digests import DigestMemo

LAZY_COMMANDS = {"demo": "gear.bench.demo:demo"}
"""Commands that live in modules of their own, imported when they are asked for."""

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


class Command(click.Command):
    """A command whose user errors are a sentence and a documented exit status, not a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except UserError as error:
            err.print(Text.assemble(("error: ", "bold red"), str(error)), soft_wrap=True)
            ctx.exit(error.exit_code)


class Group(click.Group):
    """A group of such commands, some of them imported only when they are asked for."""

    command_class = Command
    group_class = type

    def list_commands(self, ctx: click.Context) -> list[str]:
        lazy = [name for name, where in LAZY_COMMANDS.items() if _is_there(where)] if ctx.parent is None else []
        return [*super().list_commands(ctx), *lazy]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if ctx.parent is None and name in LAZY_COMMANDS and _is_there(LAZY_COMMANDS[name]):
            module, _, attribute = LAZY_COMMANDS[name].partition(":")
            command: click.Command = getattr(importlib.import_module(module), attribute)
            return command
        return super().get_command(ctx, name)


def assignment(ctx: click.Context, parameter: click.Parameter, values: Sequence[str]) -> dict[str, str]:
    """`("a=1", "b=2")` -> {"a": "1", "b": "2"}."""
    pairs = {}
    for value in values:
        name, equals, text = value.partition("=")
        if not (name and equals and text):
            raise click.BadParameter(f"'{value}' is not NAME=VALUE", ctx=ctx, param=parameter)
        pairs[name] = text
    return pairs


def yaml_value(option: str, text: str) -> Any:
    """The value of an option such as "--set adm.batch_size", typed as YAML would: 32 is a number, true is true.

    What YAML reads as text is left as it was typed, number signs and all; several lines are always text.
    """
    if "\n" in text:
        return text
    try:
        value = yaml.safe_load(text)
        return text if isinstance(value, str) and text[0] not in "'\"" else value
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that no calendar has
        raise UserError(f"{option}={text}: the value cannot be read as YAML; put text in quotes.") from error


runtime_option = click.option(
    "--runtime",
    type=click.Choice(RUNTIMES),
    default=lambda: os.environ.get("HARNESS_RUNTIME", "venv"),
    show_default="$HARNESS_RUNTIME or venv",
    help="How steps are isolated.",
)


def setting_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Where things are run and kept."""
    options = [
        runtime_option,
        click.option(
            "--asset", "assets", multiple=True, callback=assignment, metavar="NAME=PATH", help="Use this file."
        ),
        click.option(
            "--image", "images", multiple=True, callback=assignment, metavar="NAME=IMAGE", help="Ready image."
        ),
        click.option("--base-image", metavar="IMAGE", help="What images are built on ($BASE_IMAGE)."),
        click.option("--runs", "runs_dir", type=click.Path(path_type=Path), default=Path("runs"), show_default=True),
    ]
    return _with_options(command, options)


def request_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What to draw with, what to score."""
    existing = click.Path(exists=True, path_type=Path)
    options = [
        click.option("--suite", help="All benchmarks of a suite, such as c2i."),
        click.option("--benchmark", "benchmarks", multiple=True, help="One benchmark; may be repeated."),
        click.option("--ckpt", type=existing, help="GEAR model to draw with: file, run folder, or converted folder."),
        click.option("--vq-ckpt", type=existing, help="Its tokenizer, when that is another file."),
        click.option("--text-encoder", type=existing, metavar="DIR", help="Its text encoder, as a folder of files."),
        click.option(
            "--draw",
            multiple=True,
            callback=assignment,
            metavar="KEY=VALUE",
            help="With --ckpt, of gear sample: dtype=bf16, ema=false, trained-size=384, tile=N, rounding=nearest.",
        ),
        click.option(
            "--gpus",
            type=click.IntRange(min=1),
            default=1,
            show_default=True,
            help="GPUs to draw with; a --generator is started once and sees them all.",
        ),
        click.option("--tokenizer", type=existing, help="Tokenizer to judge by its reconstructions: file or folder."),
        click.option("--generator", metavar="COMMAND", help="Any program: COMMAND --requests DIR --out DIR."),
        click.option("--generator-version", default="", help="Say that something the command imports has changed."),
        click.option("--samples", type=click.Path(path_type=Path), help="Score what exists: set, NPZ or image folder."),
        click.option("--limit", type=click.IntRange(min=1), help="Only the first N requests: a cheap look."),
        click.option("--seed", "run_seed", type=int, default=0, show_default=True, help="Draw other images."),
        click.option(
            "--protocol",
            multiple=True,
            callback=assignment,
            metavar="KEY=VALUE",
            help="E.g. cfg_scale=1.75, top_k=100.",
        ),
        click.option(
            "--set", "options", multiple=True, callback=assignment, metavar="BENCH.KEY=VALUE", help="Scorer option."
        ),
        click.option("--name", help="Name of the run folder.  [default: from the plan]"),
        click.option("--force", is_flag=True, help="Compute finished steps again; the record says so."),
    ]
    return _with_options(setting_options(command), options)


def _with_options(command: Callable[..., Any], options: Sequence[Callable[..., Any]]) -> Callable[..., Any]:
    for option in reversed(options):
        command = option(command)
    return command


def make_setting(project: Project, **options: Any) -> Setting:
    home = home_dir()
    memo = DigestMemo(home / "digests")
    catalog = Catalog.load(project)
    overrides = {catalog.asset(name).name: Path(path).resolve() for name, path in options["assets"].items()}
    runtime_options = RuntimeOptions(base_image=options["base_image"], images=options["images"])
    return Setting(
        runtime=make_runtime(options["runtime"], project, home, runtime_options),
        assets=AssetStore(home / "assets", catalog.assets, memo, overrides),
        memo=memo,
        runs_dir=options["runs_dir"].resolve(),
    )


def command_line() -> list[str]:
    return ["harness", *sys.argv[1:]]


def plain_table(*columns: str) -> Table:
    table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, overflow="fold")  # a name that is cut cannot be copied
    return table


def _is_there(where: str) -> bool:
    return importlib.util.find_spec(where.partition(":")[0]) is not None
