"""What the commands share: error handling, the options of a run, tables."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.table import Table
from rich.text import Text

from harness.catalog.plugins import GENERATORS, RUNTIMES, SCHEDULERS, DrawOption
from harness.contract.errors import EXIT_INTERRUPTED, SCORER_STATUSES, EnvironmentFailure, UserError, describe_statuses
from harness.contract.shown import printable, without_secrets
from harness.contract.yaml import YamlError, parse_yaml
from harness.running.terminal import terminal

EXIT_STATUS = describe_statuses(*SCORER_STATUSES, EXIT_INTERRUPTED)

out = terminal()
err = terminal(stderr=True)


def say(text: object, *, end: str = "\n") -> None:
    """Print text as it is, for programs and people to read."""
    click.echo(printable(str(text)) + end, nl=False)


class Command(click.Command):
    """A command that ends a user error with one sentence and a documented exit status, not a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with _explained():
                return super().invoke(ctx)
        except UserError as error:
            err.print(Text.assemble(("error: ", "bold red"), without_secrets(str(error))), soft_wrap=True)
            ctx.exit(error.exit_code)


@contextmanager
def _explained() -> Iterator[None]:
    """What the file system refuses is no defect of the program, wherever it happens."""
    try:
        yield
    except OSError as error:
        if error.filename is None or error.errno not in _REFUSALS:
            raise
        kind = EnvironmentFailure if error.errno in (errno.ENOSPC, errno.EDQUOT) else UserError
        raise kind(
            f"{os.fsdecode(error.filename)}: {error.strerror}; check the path and its permissions, or choose another."
        ) from error


_REFUSALS = {
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENAMETOOLONG, errno.ELOOP,
    errno.ENOTDIR, errno.EISDIR,
}  # fmt: skip


class Group(click.Group):
    """A group of such commands."""

    command_class = Command
    group_class = type


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

    What YAML reads as text is kept as typed, including `#`; several lines are always text.
    """
    if "\n" in text:
        return text
    try:
        value = parse_yaml(text)
    except YamlError as error:
        problem = f"the value cannot be read as YAML ({error}); put text in quotes."
        raise UserError(f"{option}={text:.80}: {problem}") from error
    return text if isinstance(value, str) and text[0] not in "'\"" else value


def by_benchmark(values: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """{"adm.batch_size": "32"} -> {"adm": {"batch_size": 32}}."""
    options: dict[str, dict[str, Any]] = {}
    for name, text in values.items():
        benchmark, dot, key = name.partition(".")
        if not dot:
            raise UserError(f"--set {name}={text}: name the benchmark too, as in --set BENCHMARK.{name}={text}.")
        options.setdefault(benchmark, {})[key] = yaml_value(f"--set {name}", text)
    return options


def of_benchmark(benchmark: str, values: Mapping[str, str]) -> dict[str, Any] | None:
    """Options of one benchmark, None for none: {"batch_size": "32"} or {"adm.batch_size": "32"} -> {"batch_size": 32}.

    The benchmark is known, but messages of scorers name it, as `harness run` needs.
    """
    named = {key if key.startswith(f"{benchmark}.") else f"{benchmark}.{key}": text for key, text in values.items()}
    return by_benchmark(named).get(benchmark)


runtime_option = click.option(
    "--runtime",
    type=click.Choice(RUNTIMES.names()),
    default=lambda: os.environ.get("HARNESS_RUNTIME", "venv"),
    metavar="NAME",
    help=f"{', '.join(RUNTIMES.names())}.  [$HARNESS_RUNTIME or venv]",
)
judge_option = click.option(
    "--judge",
    metavar="MODEL",
    help="Serve this model to scorers: a folder, or its name on the hub.  [default: $HARNESS_JUDGE_MODEL]",
)
runs_option = click.option(
    "--runs", "runs_dir", type=click.Path(path_type=Path), default=Path("runs"), show_default=True, help="Runs folder."
)


def setting_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Where steps run and results are kept: the keywords of `harness.running.setting.make_setting`."""
    options = [
        runtime_option,
        click.option(
            "--scheduler",
            type=click.Choice(SCHEDULERS.names()),
            default=lambda: os.environ.get("HARNESS_SCHEDULER", "here"),
            metavar="NAME",
            help=f"{', '.join(SCHEDULERS.names())}.  [$HARNESS_SCHEDULER or here]",
        ),
        click.option(
            "--asset",
            "assets",
            multiple=True,
            callback=assignment,
            metavar="NAME=PATH",
            help="Use this file or folder for an asset.",
        ),
        click.option(
            "--image",
            "images",
            multiple=True,
            callback=assignment,
            metavar="NAME=IMAGE",
            help="Use this image for a scorer.",
        ),
        click.option("--base-image", metavar="IMAGE", help="Base image for builds ($BASE_IMAGE)."),
        runs_option,
    ]
    return _with_options(command, options)


def drawing_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The generator: the options of every one that is installed."""
    plugins = [GENERATORS.load(name) for name in GENERATORS.names()]
    return _with_options(command, [_drawing_option(option) for plugin in plugins for option in plugin.options])


def request_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What is drawn and scored."""
    options = [
        click.option("--suite", help="Run all benchmarks of a suite, such as c2i."),
        click.option("--benchmark", "benchmarks", multiple=True, help="Run one benchmark; may be repeated."),
        click.option(
            "--gpus",
            type=click.IntRange(min=1),
            default=1,
            show_default=True,
            help="GPUs to draw with; a --generator starts once and sees all of them.",
        ),
        click.option(
            "--memory",
            "memory_gb",
            type=click.FloatRange(min=0, min_open=True),
            metavar="GB",
            help="Memory of a step that draws.  [default: as its models and processes need]",
        ),
        click.option("--limit", type=click.IntRange(min=1), help="Draw only the first N images, as a quick test."),
        click.option("--seed", type=int, default=0, show_default=True, help="Different seeds draw different images."),
        click.option(
            "--protocol",
            multiple=True,
            callback=assignment,
            metavar="KEY=VALUE",
            help="Change how images are drawn, e.g. cfg_scale=1.75, top_k=100.",
        ),
        click.option(
            "--set", "options", multiple=True, callback=assignment, metavar="BENCH.KEY=VALUE", help="Scorer option."
        ),
        judge_option,
        click.option(
            "--only",
            type=click.Choice(("draw", "score")),
            help="Leave the rest to another machine.",
        ),
        click.option("--name", help="The run folder's.  [default: from the plan]"),
        click.option("--force", is_flag=True, help="Compute finished steps again; the record says so."),
    ]
    return drawing_options(_with_options(setting_options(command), options))


def command_line() -> list[str]:
    """What was typed, for the record."""
    return ["harness", *sys.argv[1:]]


def plain_table(*columns: str) -> Table:
    """A table without rules."""
    table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, overflow="fold")  # a name that is cut cannot be copied
    return table


def print_reasons(rows: Iterable[tuple[str, str]]) -> None:
    """(name, reason) rows below a table: each reason once, with everything that it is about."""
    names: dict[str, list[str]] = {}
    for name, reason in rows:
        if reason:
            names.setdefault(reason, []).append(name)
    for reason, about in names.items():
        out.print(Text(f"{', '.join(about)}: {reason}.", "dim"), soft_wrap=True)


def _drawing_option(option: DrawOption) -> Callable[..., Any]:
    how: dict[str, Any] = {"help": option.help, "metavar": option.metavar}
    if option.kind == "path":
        how["type"] = click.Path(path_type=Path)
    if option.kind == "assignments":
        how |= {"multiple": True, "callback": assignment, "metavar": option.metavar or "KEY=VALUE"}
    return click.option(option.flag, option.name, **how)


def _with_options(command: Callable[..., Any], options: Sequence[Callable[..., Any]]) -> Callable[..., Any]:
    for option in reversed(options):
        command = option(command)
    return command
