"""Errors that a person can act on: one sentence that names the file and the fix, and an exit status with a meaning."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

EXIT_OK = 0
EXIT_DEFECT = 1
EXIT_USAGE = 2
EXIT_BAD_SAMPLES = 3
EXIT_MISSING_ASSET = 4
EXIT_PARTLY_SCORED = 5
EXIT_ENVIRONMENT = 6
EXIT_NOT_COMPARABLE = 7
EXIT_STOPPED = 75
EXIT_INTERRUPTED = 130

EXIT_STATUSES = {
    EXIT_OK: "done",
    EXIT_DEFECT: "another failure, such as a defect of the program",
    EXIT_USAGE: "wrong usage or input",
    EXIT_BAD_SAMPLES: "the samples are not what the benchmark needs",
    EXIT_MISSING_ASSET: "an asset is missing or is not the listed file",
    EXIT_PARTLY_SCORED: "scored, but some items could not be",
    EXIT_ENVIRONMENT: "the environment failed",  # no GPU kernel, out of memory, disk full, judge unreachable
    EXIT_NOT_COMPARABLE: "the results are not comparable",  # of `harness compare` and `harness check --against`
    EXIT_STOPPED: "stopped by a signal after saving (the same command continues)",  # EX_TEMPFAIL of sysexits
    EXIT_INTERRUPTED: "interrupted",  # the shells' convention: 128 + SIGINT
}
"""Exit status -> its meaning, for every command of the repository: help texts and messages are made from this table."""

SCORER_STATUSES = (
    EXIT_OK,
    EXIT_DEFECT,
    EXIT_USAGE,
    EXIT_BAD_SAMPLES,
    EXIT_MISSING_ASSET,
    EXIT_PARTLY_SCORED,
    EXIT_ENVIRONMENT,
)
"""Exit statuses of the contract's commands, `generate` and `score`."""


def describe_statuses(*statuses: int) -> str:
    """A line for a help text, such as "Exit status: 0 done; 2 wrong usage or input."."""
    return "Exit status: " + "; ".join(f"{status} {EXIT_STATUSES[status]}" for status in statuses) + "."


class UserError(Exception):
    """Something the user can put right. The message says what is wrong, with which file, and what to type."""

    exit_code = EXIT_USAGE


class BadSamples(UserError):
    """The samples are not what they say they are, or not what the benchmark needs."""

    exit_code = EXIT_BAD_SAMPLES


class MissingAsset(UserError):
    """A file from outside (weights, prompts, reference batch) is absent or does not match its digest."""

    exit_code = EXIT_MISSING_ASSET


class EnvironmentFailure(UserError):
    """The machine failed, not the samples: no GPU kernel, out of memory, disk full, judge unreachable."""

    exit_code = EXIT_ENVIRONMENT


EXPLAINED_STATUSES = (EXIT_USAGE, EXIT_BAD_SAMPLES, EXIT_MISSING_ASSET, EXIT_ENVIRONMENT)
"""Exit statuses of user errors: the program has printed what is wrong, so its caller only passes the status on."""


def pick(things: Mapping[str, Any], name: str, what: str, command: str) -> Any:
    """`things[name]`, or a UserError that suggests the nearest names."""
    if name in things:
        return things[name]
    near = difflib.get_close_matches(name, things, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(things) or 'none'}."
    raise UserError(f"There is no {what} '{name}'; {hint} List them: {command}")
