"""The command `harness`: plan, run, score and look at benchmarks. A thin layer on `harness.api`."""

from __future__ import annotations

from typing import Any

import click

from harness.catalog.plugins import COMMANDS, summary
from harness.cli.base import EXIT_STATUS, Group
from harness.contract.shown import print_in_any_encoding


class Main(Group):
    """All commands (`harness.catalog.plugins.COMMANDS`), each imported when it is needed."""

    def main(self, *args: Any, **extra: Any) -> Any:
        print_in_any_encoding()
        return super().main(*args, **extra)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return COMMANDS.names()

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands in the help, for which none of them is imported."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary(COMMANDS.place(name))) for name in COMMANDS.names()])

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
@click.version_option(package_name="gear-harness", prog_name="harness")
def main() -> None:
    """Benchmark image generators: draw images, score them, keep the provenance.

    \b
      harness ls                                          benchmarks and runs
      harness plan  --benchmark adm --samples NPZ         what would happen; nothing runs
      harness run   --benchmark adm --generator 'python my_model.py' --limit 1000
      harness run   --suite t2i --generator 'python my_model.py'
      harness score adm --samples samples.npz             existing samples
      harness show  RUN                                   its scores and steps

    Run the same command again to continue where it stopped; finished steps come from the cache. A changed input
    recomputes only what depends on it.
    """
