"""Errors that a person can act on: one sentence that names the file and the fix, and a documented exit code.

Exit codes of every command that speaks the contract:

    0  done
    1  a defect in the program itself (a traceback is printed)
    2  usage: an option or an input file is wrong
    3  the samples are not what the benchmark needs
    4  an asset is missing or does not match its digest
    5  scored, but some items could not be
    6  the environment failed: no GPU kernel, out of memory, disk full, judge unreachable
"""

from __future__ import annotations

EXIT_OK = 0
EXIT_DEFECT = 1
EXIT_PARTLY_SCORED = 5


class UserError(Exception):
    """Something the user can put right. The message says what is wrong, with which file, and what to type."""

    exit_code = 2


class BadSamples(UserError):
    """The samples are not what they say they are, or not what the benchmark needs."""

    exit_code = 3


class MissingAsset(UserError):
    """A file from outside (weights, prompts, reference batch) is absent or does not match its digest."""

    exit_code = 4


class EnvironmentFailure(UserError):
    """The machine failed, not the samples: no GPU kernel, out of memory, disk full, judge unreachable."""

    exit_code = 6
