"""The scripts that people run by hand, as commands of a shell."""

from __future__ import annotations

import itertools
import os
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2] / "scripts"


def environment(**settings: object) -> dict[str, str]:
    """Nothing of this process's own settings; `python3` is the one that runs the tests."""
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    kept = {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
    home = os.environ.get("HOME", "/tmp")
    return {"PATH": path, "HOME": home, **kept, **{name: str(value) for name, value in settings.items()}}


def sh(script: Path, *arguments: str, cwd: Path | None = None, **settings: object) -> subprocess.CompletedProcess[str]:
    """Run a script with these settings and no others."""
    command = ["sh", str(script), *arguments]
    return subprocess.run(command, env=environment(**settings), cwd=cwd, capture_output=True, text=True)


def words(script: Path, *arguments: str, **settings: object) -> list[str]:
    """The words of the command that a script would start."""
    done = sh(script, *arguments, DRY_RUN=1, **settings)
    assert done.returncode == 0, done.stderr
    return shlex.split(done.stdout.splitlines()[-1])


def option(command: list[str], name: str) -> str | None:
    """The value of an option."""
    return command[command.index(name) + 1] if name in command else None


def options(command: list[str], name: str) -> list[str]:
    """The values of an option that may be repeated."""
    return [word for before, word in itertools.pairwise(command) if before == name]
