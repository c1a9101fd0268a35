"""The command `gear`: train, sample, reconstruct, inspect model files.

Heavy imports happen inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

import logging
import os
import sys

import click

from gear import __version__
from gear.cli.base import Group
from gear.cli.data import data
from gear.cli.models import convert, info, reconstruct
from gear.cli.pairs import pairs
from gear.cli.presets import presets
from gear.cli.sample import sample
from gear.cli.train import train
from harness.contract.errors import EXIT_OK, EXIT_STOPPED, EXPLAINED_STATUSES, describe_statuses
from harness.contract.shown import print_in_any_encoding

# Read by OpenMP when torch is imported. Waiting threads sleep instead of spinning: on a CPU that is shared with other
# work, this makes a step several times as fast.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="gear")
@click.option("-q", "--quiet", is_flag=True, help="Only warnings and errors.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads.  [default: one per core]")
def main(quiet: bool, threads: int | None) -> None:
    """Train and sample GEAR: a VQ tokenizer and an autoregressive generator that learn together.

    \b
    The demo, stage by stage (minutes on a CPU, no data needed):
      gear train tokenizer --preset demo --out exps/demo/tokenizer
      gear train e2e       --preset demo --out exps/demo/e2e --init exps/demo/tokenizer
      gear train ar        --preset demo --out exps/demo/ar  --init exps/demo/e2e
      gear sample --ckpt exps/demo/ar --per-class 8 --out exps/demo/samples

    To resume an interrupted command, run it again.
    """
    print_in_any_encoding()
    if threads is not None:
        os.environ["OMP_NUM_THREADS"] = str(threads)  # read when torch is imported, which is later
    logging.basicConfig(level=logging.WARNING if quiet else logging.INFO, format="%(message)s", stream=sys.stderr)


main.epilog = describe_statuses(EXIT_OK, *EXPLAINED_STATUSES, EXIT_STOPPED)
for command in (train, sample, reconstruct, pairs, info, convert, presets, data):
    main.add_command(command)
