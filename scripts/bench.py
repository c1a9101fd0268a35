"""Side-by-side benchmarks: ours against the plain form, in one run on one machine.

    python scripts/bench.py --help

Machines are shared and noisy, so only the ratio matters: both forms run alternately in the same process state, and
the table prints each one's fastest and median time, its peak memory, and the ratio. Each benchmark lives in
`scripts/benches/<name>.py` as a click command `bench`.
"""

from __future__ import annotations

import importlib
import os
import pkgutil

import benches
import click

# Read by OpenMP when torch is imported: waiting threads sleep instead of spinning, as in the commands themselves.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

_NOT_BENCHES = {"contract_files", "measure", "plain_step"}
"""Modules without a command here: shared code, and a program of its own."""


class Benches(click.Group):
    """One subcommand per module, imported only when it is used; `_` in a module's name is `-` in the command's."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        names = (module.name for module in pkgutil.iter_modules(benches.__path__))
        return sorted(name.replace("_", "-") for name in names if name not in _NOT_BENCHES)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in self.list_commands(ctx):
            return None
        command: click.Command = importlib.import_module(f"benches.{name.replace('-', '_')}").bench
        return command


@click.command(cls=Benches, help=__doc__)
def main() -> None:
    pass


if __name__ == "__main__":
    main()
