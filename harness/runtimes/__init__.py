"""How one isolated step is run: a runtime turns a step and its folders into one command line, and runs it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from harness.catalog.plugins import RUNTIMES
from harness.catalog.project import Project
from harness.planning.steps import Environment, Step


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where the inputs and the output of one attempt at a step are on this machine."""

    inputs: Mapping[str, Path]
    """Name below `{in}` -> file or folder."""
    work: Path
    """Folder of the attempt; `output` and `scratch` are in it."""
    gpus: tuple[str, ...] = ()
    """Ids of the GPUs the step may use."""

    @property
    def output(self) -> Path:
        """What `{out}` is."""
        return self.work / "output"

    @property
    def scratch(self) -> Path:
        """Deleted when the step ends."""
        return self.work / "scratch"

    def with_given_paths(self, text: str) -> str:
        """`text` with every path below `{in}`, here or in a container, as the file that the user gave."""
        return self._in_paths.sub(lambda found: str(self.inputs[found[1]]), text) if self.inputs else text

    @cached_property
    def _in_paths(self) -> re.Pattern[str]:
        roots = "|".join(re.escape(str(root / "in")) for root in {self.work, self.work.resolve()})
        names = "|".join(map(re.escape, sorted(self.inputs, key=len, reverse=True)))
        return re.compile(rf"(?:{roots}|(?<![\w./-])/in)/({names})(?![\w.-]*\w)")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a command ended."""

    exit_code: int
    seconds: float
    reason: str = ""
    """Why the harness ended it: "timeout", "cancelled", "out of memory"; "" when it ended by itself."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One line of `harness doctor`."""

    name: str
    ok: bool
    detail: str
    fix: str = ""
    required: bool = True
    """Whether runs fail without it."""


OnLine = Callable[[str], None]
"""Called with every line a command prints."""
Say = Callable[[str], None]
"""Called with a sentence about what is being prepared."""


class Runtime(Protocol):
    """What every runtime must provide."""

    @property
    def name(self) -> str:
        """As given to `--runtime`."""

    def environment_digest(self, environment: Environment) -> str:
        """Digest of everything in the environment that can change an output; builds nothing."""

    def is_ready(self, environment: Environment) -> bool:
        """Whether `prepare` would have nothing to do."""

    def prepare(self, environment: Environment, say: Say) -> None:
        """Build the environment unless it is there. Raises EnvironmentFailure with the end of the build's log."""

    def describe(self, environment: Environment) -> dict[str, Any]:
        """The environment for the record: image or lock digest, versions."""

    def command(self, step: Step, places: Places) -> list[str]:
        """The command line that runs the step: what `--dry-run` prints."""

    def run(self, step: Step, places: Places, on_line: OnLine, stopped: Callable[[], bool]) -> Outcome:
        """Run the step to its end, or until `stopped` says so."""

    def clear(self, places: Places) -> None:
        """End what an earlier attempt in the same work folder has left running."""

    def checks(self) -> list[Check]:
        """Whether this machine can use the runtime."""


@dataclass(frozen=True, kw_only=True)
class RuntimeOptions:
    """What the user may choose about a runtime."""

    base_image: str | None = None
    """Containers: the image the others start from (`BASE_IMAGE`)."""
    images: Mapping[str, str] = field(default_factory=dict)
    """Containers: a ready image instead of one to build, by the environment's name (a scorer's: its benchmark's)."""


class RuntimeFactory(Protocol):
    """What the entry point of a runtime names: usually the runtime's class."""

    def __call__(self, project: Project, home: Path, options: RuntimeOptions) -> Runtime:
        """The runtime, for steps made from `project`; what it keeps between runs is stored below `home`."""


def make_runtime(name: str, project: Project, home: Path, options: RuntimeOptions | None = None) -> Runtime:
    """The runtime called `name`.

    Raises:
        UserError: there is no such runtime.
        EnvironmentFailure: its engine does not answer.
    """
    factory: RuntimeFactory = RUNTIMES.load(name)
    return factory(project, home, options or RuntimeOptions())


def fill_in(argv: tuple[str, ...], values: Mapping[str, str]) -> list[str]:
    """Replace the placeholders of a step's command line; other braces are left alone."""
    filled = []
    for word in argv:
        for name, value in values.items():
            word = word.replace(f"{{{name}}}", value)
        filled.append(word)
    return filled
