"""Registries of everything that is chosen by name; installed packages add to them without a change to this one.

A package names what it adds in its pyproject.toml, by an entry point; the group says which protocol the object follows:

    [project.entry-points."harness.generators"]      harness.planning.generators.GeneratorPlugin
    [project.entry-points."harness.runtimes"]        harness.runtimes.RuntimeFactory
    [project.entry-points."harness.schedulers"]      harness.schedulers.SchedulerFactory
    [project.entry-points."harness.exporters"]       harness.report.exporters.Exporter
    [project.entry-points."harness.commands"]        a click.Command, which becomes `harness NAME`
    [project.entry-points."harness.assets"]          a package with an assets.yaml, of files that its models need

    my-model = "my_package.bench:MY_MODEL"

Nothing is imported before it is used.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from harness.contract.errors import UserError, pick


@dataclass(frozen=True)
class Plugins:
    """The objects of one kind, by name: those of the harness, and those that installed packages add."""

    group: str
    """The entry point group, such as "harness.runtimes"."""
    what: str
    """What one of them is called in a message, such as "runtime"."""
    shipped: Mapping[str, str]
    """Name -> "module:attribute" of those that come with the harness."""

    @cached_property
    def _places(self) -> dict[str, str]:
        places = dict(self.shipped)
        for entry in sorted(_entry_points(self.group), key=lambda entry: entry.name):
            if not _is_importable(entry.value):  # the package's files are gone; its metadata is still there
                continue
            if places.get(entry.name, entry.value) != entry.value:
                raise UserError(
                    f"Two packages add the {self.what} '{entry.name}': {places[entry.name]} and {entry.value}; "
                    "uninstall one of them."
                )
            places[entry.name] = entry.value
        return places

    def place(self, name: str) -> str:
        """Where the object called `name` is, as "module:attribute"; UserError when there is none."""
        found: str = pick(self._places, name, self.what, "harness run --help")
        return found

    def names(self) -> list[str]:
        """All names, those of the harness first.

        Raises:
            UserError: two packages add the same name.
        """
        return list(self._places)

    def load(self, name: str) -> Any:
        """The object called `name`, imported now.

        Raises:
            UserError: there is none, or its package cannot be imported.
        """
        place = self.place(name)
        module, _, attribute = place.partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise UserError(
                f"The {self.what} '{name}' ({place}) cannot be imported ({error}); install its package again."
            ) from error


GENERATORS = Plugins(
    "harness.generators",
    "generator",
    {"generator": "harness.planning.generators:COMMAND", "samples": "harness.planning.generators:SAMPLES"},
)
"""Generators, by the option that chooses one."""

RUNTIMES = Plugins(
    "harness.runtimes",
    "runtime",
    {
        "venv": "harness.runtimes.venv:VenvRuntime",
        "docker": "harness.runtimes.docker:DockerRuntime",
        "podman": "harness.runtimes.podman:PodmanRuntime",
    },
)
"""Ways of isolating a step, by the name that `--runtime` takes."""

SCHEDULERS = Plugins("harness.schedulers", "scheduler", {"here": "harness.schedulers.here:Here"})
"""Where steps run, by the name that `--scheduler` takes."""

EXPORTERS = Plugins(
    "harness.exporters",
    "exporter",
    {
        "csv": "harness.report.exporters:CSV",
        "markdown": "harness.report.exporters:MARKDOWN",
        "json": "harness.report.exporters:JSON",
    },
)
"""Export formats of scores, by the name that `harness export --to` takes."""

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
        "compare": "harness.cli.compare:compare",
        "freeze": "harness.cli.freeze:freeze",
        "verify": "harness.cli.freeze:verify",
        "export": "harness.cli.look:export",
        "doctor": "harness.cli.doctor:doctor",
        "assets": "harness.cli.assets:assets",
        "images": "harness.cli.assets:images",
        "prepare": "harness.cli.assets:prepare",
        "layout": "harness.cli.layout:layout",
        "new": "harness.cli.new:new",
    },
)
"""Commands of `harness`, by name."""


@dataclass(frozen=True)
class DrawOption:
    """An option of `harness run` that a generator brings, and a keyword of `harness.run`."""

    name: str
    """Python name; hyphens on the command line."""
    help: str
    kind: Literal["path", "text", "assignments"] = "text"
    """A path; any text; or NAME=VALUE, several times (a mapping in Python)."""
    metavar: str | None = None

    @property
    def flag(self) -> str:
        """As typed."""
        return f"--{self.name.replace('_', '-')}"


def asset_lists() -> list[Path]:
    """The assets.yaml of every installed package that has one to add, found without importing it."""
    specs = [importlib.util.find_spec(entry.value) for entry in _entry_points("harness.assets")]
    folders = [Path(spec.origin).parent for spec in specs if spec is not None and spec.origin is not None]
    return sorted(folder / "assets.yaml" for folder in folders)


def summary(place: str) -> str:
    """The first sentence of the docstring of the function at "module:attribute", read without running its module.

    So a list of commands does not have to import what each of them needs; "" where there is no source to read.
    """
    module, _, attribute = place.partition(":")
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return ""
    body = ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body
    functions = {node.name: ast.get_docstring(node) or "" for node in body if isinstance(node, ast.FunctionDef)}
    return " ".join(functions.get(attribute, "").partition("\n\n")[0].split())


@cache
def _entry_points(group: str) -> tuple[metadata.EntryPoint, ...]:
    return tuple(metadata.entry_points(group=group))


def _is_importable(place: str) -> bool:
    return importlib.util.find_spec(place.partition(":")[0].partition(".")[0]) is not None
