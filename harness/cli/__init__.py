"""The command `harness`: plan, run, score and look at benchmarks. A thin layer on `harness.api`."""

from __future__ import annotations

import click

from harness import __version__
from harness.catalog.plugins import Plugins
from harness.cli.base import EXIT_STATUS, Group

COMMANDS = Plugins(
    "harness.commands",
    "command",
    {
        "plan": "harness.cli.run:plan",
        "run": "harness.cli.run:run",
        "score": "harness.cli.run:score",
        "check": "harness.cli.check:check",
        "ls": "harness.cli.look:ls",
        "show": "harness.cli.look:show",
        "report": "harness.cli.look:report",
        "compare": "harness.cli.look:compare",
        "export": "harness.cli.look:export",
        "doctor": "harness.cli.doctor:doctor",
        "assets": "harness.cli.assets:assets",
        "images": "harness.cli.assets:images",
        "prepare": "harness.cli.assets:prepare",
        "layout": "harness.cli.layout:layout",
        "new": "harness.cli.new:new",
    },
)
"""Commands by name; an installed package may add more (entry point group `harness.commands`)."""


class Main(Group):
    """The commands above, each imported when it is needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return COMMANDS.names()

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS.names():
            return None
        command: click.Command = COMMANDS.load(name)
        return command


@click.group(
    cls=Main,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=EXIT_STATUS,
)
@click.version_option(__version__, prog_name="harness")
def main() -> None:
    """Score image generators: draw what a benchmark asks for, score it, and keep every number's provenance.

    \b
      harness ls                                          benchmarks and runs
      harness plan  --benchmark adm --samples NPZ         what would happen; nothing runs
      harness run   --benchmark adm --generator 'python my_model.py' --limit 1000
      harness run   --suite t2i --generator 'python my_model.py'
      harness score adm --samples samples.npz             samples that exist already
      harness show  RUN                                   its scores and steps

    The same command again finishes from cache, or continues where it was stopped. A changed input recomputes what
    depends on it, and nothing else.
    """
