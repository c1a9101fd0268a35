"""Generators: a command of the user's own, existing samples, or what an installed package adds.

Each kind of generator is a plugin: its first option chooses it (`--generator`, `--samples`), the others belong to
it. The same names are keywords of `harness.run` and `harness.plan`.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from harness.catalog.assets import Asset
from harness.catalog.benchmarks import Benchmark
from harness.catalog.plugins import GENERATORS, DrawOption
from harness.catalog.project import Project
from harness.contract.digest import sha256_file
from harness.contract.errors import UserError
from harness.contract.layouts import Layout
from harness.contract.walk import walk
from harness.planning.steps import CALLER, HOST, Document, FileInput, Generator, OutputOf, Resources, Source, Step


@dataclass(frozen=True, kw_only=True)
class DrawContext:
    """What a plugin may need to know besides its own options."""

    project: Project
    gpus: int = 1
    """GPUs to draw with."""
    memory_gb: float | None = None
    """Memory of a step that draws, where the user says it; None: the generator does."""
    limit: int | None = None
    """Only the first N images; None: all."""
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Changes to scorer options, by benchmark."""
    digest: Callable[[Path], str] = sha256_file
    """sha256 of a file; the harness gives one that remembers files which have not changed."""
    asset: Callable[[str], Path | None] = lambda name: None
    """Where an asset is on this machine; None: it is not here. The harness finds those that are missing by itself."""


class GeneratorPlugin(Protocol):
    """A kind of generator: entry point group `harness.generators`, under the name of its first option."""

    options: tuple[DrawOption, ...]
    """The first one chooses this generator; the others belong to it."""

    def generator(self, values: Mapping[str, Any], context: DrawContext) -> Generator:
        """The generator for the values of its options; UserError when they are wrong."""


class NeedsAssets(Protocol):
    """A GeneratorPlugin whose first option names something made of assets: `harness assets` takes that option, too."""

    options: tuple[DrawOption, ...]

    def needed_assets(self, value: str) -> tuple[Asset, ...]:
        """The assets behind a value of the option; UserError when there is no such value."""


def plugins_with_assets() -> dict[str, NeedsAssets]:
    """The generators that are made of assets, by name."""
    plugins = {name: GENERATORS.load(name) for name in GENERATORS.names()}
    return {name: plugin for name, plugin in plugins.items() if hasattr(plugin, "needed_assets")}


def given_options(values: Mapping[str, Any]) -> dict[str, Any]:
    """The options that somebody gave, out of all that there are: those that are neither None nor empty."""
    return {name: value for name, value in values.items() if value not in (None, "", (), {})}


def choose_generator(given: Mapping[str, Any], context: DrawContext) -> Generator:
    """The generator that the given options name.

    Args:
        given: options by name; those that are None or empty were not given.
        context: what else a generator may need.
    Raises:
        UserError: none or several are named, an option belongs to another one, or there is no such option.
    """
    given = given_options(given)
    plugins: dict[str, GeneratorPlugin] = {name: GENERATORS.load(name) for name in GENERATORS.names()}
    flags = {name: plugin.options[0].flag for name, plugin in plugins.items()}
    owners = {option.name: name for name, plugin in plugins.items() for option in plugin.options}
    unknown = sorted(set(given) - set(owners))
    if unknown:
        raise UserError(f"There is no generator option '{unknown[0]}'; there are: {', '.join(owners)}.")
    chosen = [name for name in plugins if name in given]
    if len(chosen) != 1:
        problem = "No generator is named; give one of" if not chosen else "Several generators are named; give one of"
        raise UserError(f"{problem} {', '.join(flags.values())}.")
    for option in given:
        if owners[option] != chosen[0]:
            raise UserError(f"--{option.replace('_', '-')} belongs to {flags[owners[option]]}, which was not given.")
    return plugins[chosen[0]].generator(given, context)


COMMAND_ADVICE = "Fewer steps run beside it when it has more: --memory GB."


@dataclass(frozen=True, kw_only=True)
class CommandGenerator:
    """Any program: `COMMAND --requests DIR --out DIR` writes a sample set.

    Its identity is the command and the contents of every file that it names, and of the weights in every folder that it
    names; what those import is not tracked, so change `version` when something they import has changed.
    """

    command: tuple[str, ...]
    cwd: Path
    version: str = ""
    gpus: int = 1
    memory_gb: float = 8.0
    """Memory that other steps leave to it. Nothing holds it to that."""
    digest: Callable[[Path], str] = sha256_file
    """sha256 of a file."""
    name: str = "command"
    draws_nothing: bool = False
    heeds: frozenset[str] = frozenset()

    def describe(self) -> dict[str, Any]:
        """The command line."""
        return {"name": self.name, "kind": "command", "command": shlex.join(self.command), "version": self.version}

    def draw(self, benchmark: Benchmark, requests: OutputOf | None) -> tuple[list[Step], Source]:
        """The command in the user's shell environment and folder, called again with the same `--out` after a kill."""
        return sample_step(
            benchmark,
            requests,
            environment=CALLER,
            argv=self.command,
            inputs={},
            identity={"generator": self.version, "files": self._digests},
            resources=Resources(gpus=self.gpus, memory_gb=self.memory_gb, advice=COMMAND_ADVICE),
            cwd=str(self.cwd),
        )

    @cached_property
    def _digests(self) -> dict[str, str]:
        """sha256 of files, by the word that names them, or names their folder."""
        # The first word is the interpreter; hashing a Python binary would say nothing about the model.
        words = [word.partition("=")[2] if word.startswith("-") else word for word in self.command[1:]]
        if os.sep in self.command[0] and Path(self.command[0]).suffix:
            words.append(self.command[0])
        files = {}
        for word in filter(None, words):
            path = self.cwd / word
            if path.is_file():
                files[word] = path
            elif path.is_dir() and not self.cwd.resolve().is_relative_to(path.resolve()):
                inside = (name for name in walk(path, error=None) if Path(name).suffix in _WEIGHTS)
                files |= {f"{word}/{name}": path / name for name in inside}
        return {name: self.digest(path) for name, path in sorted(files.items())}


_WEIGHTS = {".safetensors", ".bin", ".pt", ".pth", ".ckpt"}
"""Suffixes of weights. Other files in a folder may be written by the command itself."""


@dataclass(frozen=True, kw_only=True)
class ExistingSamples:
    """Existing samples: a sample set, an NPZ with `arr_0`, or a folder of images."""

    path: Path
    layout: Layout | None = None
    """How the folder is laid out, when it was made for the original scorer of a prompt suite."""
    name: str = "samples"
    heeds: frozenset[str] = frozenset()

    @property
    def draws_nothing(self) -> bool:
        """False for a folder whose images need the benchmark's prompts."""
        return self.layout is None or self.layout.metadata is not None

    def describe(self) -> dict[str, Any]:
        """Where they came from."""
        row = {"name": self.name, "kind": "samples", "path": str(self.path)}
        return row if self.layout is None else {**row, "layout": self.layout.images}

    def draw(self, benchmark: Benchmark, requests: OutputOf | None) -> tuple[list[Step], Source]:
        """A sample set is used as it is; anything else is checked and adopted as one, once for all benchmarks."""
        if self.layout is not None:
            return self._adopt(benchmark, self.layout, requests)
        if benchmark.form == "pairs":
            return [], FileInput(self.path)
        if (self.path / "samples.json").is_file():
            return [], FileInput(self.path, kind="sample")
        if benchmark.condition == "text":
            raise UserError(
                f"{self.path}: is not a sample set, so the prompt of each image is unknown; for a folder made for "
                f"the original scorer: harness score {benchmark.id} --samples {self.path} "
                f"--layout {next(iter(benchmark.layouts), 'NAME')}"
            )
        name = f"samples{self.path.suffix if self.path.is_file() else ''}"
        adopt = Step(
            name="samples",
            kind="sample",
            title="adopt the samples",
            environment=HOST,
            argv=("{python}", "-m", "harness.contract", "adopt", f"{{in}}/{name}", "{out}"),
            inputs={name: FileInput(self.path)},
        )
        return [adopt], OutputOf(adopt.name)

    def _adopt(self, benchmark: Benchmark, layout: Layout, requests: OutputOf | None) -> tuple[list[Step], Source]:
        """Adopt a folder by its layout; its prompts are in it, or in the benchmark's request set."""
        suite = {"benchmark": benchmark.id, "version": benchmark.version, "protocol": asdict(benchmark.protocol)}
        inputs: dict[str, Source] = {
            "samples": FileInput(self.path),
            "layout.json": Document({**suite, "layout": asdict(layout)}),
        }
        words = ["adopt", "{in}/samples", "{out}", "--layout", "{in}/layout.json", "--form", benchmark.form]
        if requests is not None:
            # Not under the name "requests": the samples are for the prompts that have images, not the whole set.
            inputs["prompts"] = requests
            words += ["--requests", "{in}/prompts"]
        step = Step(
            name=f"samples-{benchmark.id}",
            kind="sample",
            title=f"{benchmark.id}: adopt the folder",
            environment=HOST,
            argv=("{python}", "-m", "harness.contract", *words),
            inputs=inputs,
            benchmark=benchmark.id,
        )
        return [step], OutputOf(step.name)


def command_generator(
    command: str,
    *,
    cwd: Path | None = None,
    version: str = "",
    gpus: int = 1,
    digest: Callable[[Path], str] = sha256_file,
) -> CommandGenerator:
    """A CommandGenerator from one line, as typed in a shell.

    Raises:
        UserError: the line is empty or has an open quote.
    """
    try:
        words = tuple(shlex.split(command))
    except ValueError as error:
        raise UserError(f"--generator {command!r}: {error}; close the quote.") from error
    if not words:
        raise UserError("--generator is empty; give a command such as --generator 'python my_model.py'.")
    return CommandGenerator(command=words, cwd=cwd or Path.cwd(), version=version, gpus=gpus, digest=digest)


def existing_samples(path: Path, layout: Layout | None = None) -> ExistingSamples:
    """ExistingSamples at a path that exists."""
    if not path.exists():
        raise UserError(f"{path}: does not exist; give --samples an NPZ file or a folder of samples.")
    return ExistingSamples(
        path=path.resolve(),
        layout=layout,
        name=re.sub(r"[^\w.-]+", "-", path.resolve().stem, flags=re.ASCII) or "samples",
    )


def sample_step(
    benchmark: Benchmark, requests: OutputOf | None, *, argv: tuple[str, ...], **fields: Any
) -> tuple[list[Step], Source]:
    if requests is None:
        raise ValueError("a generator that draws needs a request set")
    inputs = {**fields.pop("inputs"), "requests": requests}
    step = Step(
        name=f"sample-{benchmark.id}",
        kind="sample",
        title=f"{benchmark.id}: draw",
        argv=(*argv, "--requests", "{in}/requests", "--out", "{out}"),
        inputs=inputs,
        resumes=True,
        benchmark=benchmark.id,
        **fields,
    )
    return [step], OutputOf(step.name)


# --- plugins ---------------------------------------------------------------------------------------------------------


class _Command:
    """`--generator COMMAND`."""

    options = (
        DrawOption("generator", "Any program: COMMAND --requests DIR --out DIR.", metavar="COMMAND"),
        DrawOption("generator_version", "Change it when something that the command imports has changed."),
    )

    def generator(self, values: Mapping[str, Any], context: DrawContext) -> Generator:
        version = values.get("generator_version", "")
        made = command_generator(values["generator"], version=version, gpus=context.gpus, digest=context.digest)
        return replace(made, memory_gb=context.memory_gb or made.memory_gb)


class _Samples:
    """`--samples PATH`."""

    options = (DrawOption("samples", "Existing samples: sample set, NPZ, or image folder.", "path"),)

    def generator(self, values: Mapping[str, Any], context: DrawContext) -> Generator:
        return existing_samples(Path(values["samples"]))


COMMAND = _Command()
SAMPLES = _Samples()
