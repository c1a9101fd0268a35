"""Who draws: GEAR, a command of the user's own, or samples that exist already. Each turns into one step of the plan."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from harness.catalog.benchmarks import Benchmark
from harness.catalog.project import Project, home_dir
from harness.contract.errors import UserError
from harness.contract.layouts import Layout
from harness.planning.steps import CALLER, CORE, HOST, Document, FileInput, OutputOf, Resources, Source, Step
from harness.store.digests import DigestMemo

TRAINING_ONLY = (
    "gear/training",
    "gear/losses",
    "gear/teachers",
    "gear/data",
    "gear/align.py",
    "gear/cli",
)
"""Code of gear that cannot change a sample; editing it must not throw samples away."""


DRAWING_OPTIONS = ("dtype", "ema", "rounding", "tile", "trained-size")
"""Options of `gear sample` that decide the pixels and that no request set holds."""


@dataclass(frozen=True, kw_only=True)
class GearGenerator:
    """A GEAR model: the AR checkpoint, and the tokenizer's when it is another file."""

    ckpt: Path
    vq_ckpt: Path | None = None
    text_encoder: Path | None = None
    """Folder of a text-to-image model's encoder; None: it comes with a package. Steps see no cache of the hub's."""
    code_digest: str
    """Of the code that samples: an edit there makes new samples."""
    options: Mapping[str, str] = field(default_factory=dict)
    """Options of `gear sample` out of DRAWING_OPTIONS, such as {"dtype": "bf16", "ema": "false"}."""
    gpus: int = 1
    """GPUs that draw side by side, a process on each; which images come out does not depend on it."""
    name: str = "gear"
    draws_nothing: bool = False
    heeds: frozenset[str] = frozenset()

    def describe(self) -> dict[str, Any]:
        """The files and the options."""
        files = {"ckpt": self.ckpt, "vq_ckpt": self.vq_ckpt, "text_encoder": self.text_encoder}
        named = {name: None if path is None else str(path) for name, path in files.items()}
        return {"name": self.name, "kind": "gear", **named, "options": dict(self.options)}

    def draw(self, benchmark: Benchmark, requests: OutputOf | None) -> tuple[list[Step], Source]:
        """`python -m gear sample --ckpt ... --requests ... --out ...`, which resumes by shard."""
        # The model keeps its file's name: the image size of a published one stands nowhere else (c2i_B_384.pt).
        files = {"ckpt": (self.ckpt, f"model-{self.ckpt.name}" if self.ckpt.is_dir() else self.ckpt.name)}
        if self.vq_ckpt is not None:
            files["vq-ckpt"] = (self.vq_ckpt, f"vq-ckpt{self.vq_ckpt.suffix}")
        if self.text_encoder is not None:
            files["text-encoder"] = (self.text_encoder, "text-encoder")
        flags = [word for name, (_, seen_as) in files.items() for word in (f"--{name}", f"{{in}}/{seen_as}")]
        inputs: dict[str, Source] = {seen_as: FileInput(path) for path, seen_as in files.values()}
        for name, value in sorted(self.options.items()):
            flags += [f"--{'' if value == 'true' else 'no-'}ema"] if name == "ema" else [f"--{name}", value]
        return _sample_step(
            benchmark,
            requests,
            environment=CORE,
            argv=("{python}", "-m", "gear", "sample", *flags, "--form", benchmark.form),
            inputs=inputs,
            identity={"generator": "gear", "code": self.code_digest},
            resources=Resources(gpus=self.gpus, memory_gb=8.0),
        )


@dataclass(frozen=True, kw_only=True)
class CommandGenerator:
    """Somebody's own program: `COMMAND --requests DIR --out DIR` writes a sample set.

    Its identity is the command and the contents of every file that it names, and of the weights in every folder that it
    names; what those import is not known here, so `version` is there to say that something else has changed.
    """

    command: tuple[str, ...]
    cwd: Path
    version: str = ""
    gpus: int = 1
    name: str = "command"
    draws_nothing: bool = False
    heeds: frozenset[str] = frozenset()

    def describe(self) -> dict[str, Any]:
        """The command line."""
        return {"name": self.name, "kind": "command", "command": shlex.join(self.command), "version": self.version}

    def draw(self, benchmark: Benchmark, requests: OutputOf | None) -> tuple[list[Step], Source]:
        """The command in the user's shell environment and folder, called again with the same `--out` after a kill."""
        return _sample_step(
            benchmark,
            requests,
            environment=CALLER,
            argv=self.command,
            inputs={},
            identity={"generator": self.version, "files": self._digests},
            resources=Resources(gpus=self.gpus, memory_gb=8.0),
            cwd=str(self.cwd),
        )

    @cached_property
    def _digests(self) -> dict[str, str]:
        """sha256 of files, by the word that names them, or names their folder."""
        memo = DigestMemo(home_dir() / "digests")
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
                inside = (file for file in path.rglob("*") if file.suffix in _WEIGHTS and file.is_file())
                files |= {f"{word}/{file.relative_to(path).as_posix()}": file for file in inside}
        return {name: memo.file(path) for name, path in sorted(files.items())}


_WEIGHTS = {".safetensors", ".bin", ".pt", ".pth", ".ckpt"}
"""Suffixes. Whatever else lies in a folder may be what the command itself leaves there."""


@dataclass(frozen=True, kw_only=True)
class ExistingSamples:
    """Samples somebody drew already: a sample set, an NPZ with `arr_0`, or a folder of images."""

    path: Path
    layout: Layout | None = None
    """How the folder is laid out, when it was made for the original scorer of a prompt suite."""
    name: str = "samples"
    heeds: frozenset[str] = frozenset()

    @property
    def draws_nothing(self) -> bool:
        """False for a folder whose images mean nothing without the benchmark's prompts."""
        return self.layout is None or self.layout.metadata is not None

    def describe(self) -> dict[str, Any]:
        """Where they came from."""
        row = {"name": self.name, "kind": "samples", "path": str(self.path)}
        return row if self.layout is None else {**row, "layout": self.layout.images}

    def draw(self, benchmark: Benchmark, requests: OutputOf | None) -> tuple[list[Step], Source]:
        """A sample set is used as it is; anything else is checked and taken in as one, once for all benchmarks."""
        if self.layout is not None:
            return self._take_in(benchmark, self.layout, requests)
        if benchmark.form == "pairs":
            return [], FileInput(self.path)
        if (self.path / "samples.json").is_file():
            return [], FileInput(self.path, kind="sample")
        if benchmark.condition == "text":
            raise UserError(
                f"{self.path}: is no sample set, so nothing says which prompt an image is of; for a folder made for "
                f"the original scorer: harness score {benchmark.id} --samples {self.path} "
                f"--layout {next(iter(benchmark.layouts), 'NAME')}"
            )
        name = f"samples{self.path.suffix if self.path.is_file() else ''}"
        adopt = Step(
            name="samples",
            kind="sample",
            title="take the samples in",
            environment=HOST,
            argv=("{python}", "-m", "harness.contract", "adopt", f"{{in}}/{name}", "{out}"),
            inputs={name: FileInput(self.path)},
        )
        return [adopt], OutputOf(adopt.name)

    def _take_in(self, benchmark: Benchmark, layout: Layout, requests: OutputOf | None) -> tuple[list[Step], Source]:
        """Take in a folder by its layout; what was asked for is in it, or in the benchmark's request set."""
        suite = {"benchmark": benchmark.id, "version": benchmark.version, "protocol": asdict(benchmark.protocol)}
        inputs: dict[str, Source] = {
            "samples": FileInput(self.path),
            "layout.json": Document({**suite, "layout": asdict(layout)}),
        }
        words = ["adopt", "{in}/samples", "{out}", "--layout", "{in}/layout.json", "--form", benchmark.form]
        if requests is not None:
            # Not under the name "requests": the samples answer the prompts that have images, not the whole set.
            inputs["prompts"] = requests
            words += ["--requests", "{in}/prompts"]
        step = Step(
            name=f"samples-{benchmark.id}",
            kind="sample",
            title=f"{benchmark.id}: take the folder in",
            environment=HOST,
            argv=("{python}", "-m", "harness.contract", *words),
            inputs=inputs,
            benchmark=benchmark.id,
        )
        return [step], OutputOf(step.name)


def gear_code_digest(project: Project, *, training: bool = False) -> str:
    """Digest of the code of gear that decides a sample; with `training`, of all that decides a trained model too."""
    files = project.code_files(["gear", "harness/contract"])
    return project.code_digest([name for name in files if training or not name.startswith(TRAINING_ONLY)])


def gear_generator(
    project: Project,
    ckpt: Path,
    vq_ckpt: Path | None = None,
    *,
    text_encoder: Path | None = None,
    options: Mapping[str, str] | None = None,
    gpus: int = 1,
) -> GearGenerator:
    """A GearGenerator for checkpoint files, the run folders they are in, or folders that `gear convert` wrote.

    Raises:
        UserError: a checkpoint is not there, or `gear sample` has no such option.
    """
    for name, value in (options or {}).items():
        if name not in DRAWING_OPTIONS:
            raise UserError(f"--draw {name}={value}: there is no such option; there are: {', '.join(DRAWING_OPTIONS)}.")
        if name == "ema" and value not in ("true", "false"):
            raise UserError(f"--draw ema={value}: give true (averaged weights) or false (live ones).")
    return GearGenerator(
        ckpt=_model(ckpt),
        vq_ckpt=_model(vq_ckpt) if vq_ckpt else None,
        text_encoder=text_encoder.resolve() if text_encoder else None,
        code_digest=gear_code_digest(project),
        options=dict(options or {}),
        gpus=gpus,
    )


def command_generator(command: str, *, cwd: Path | None = None, version: str = "", gpus: int = 1) -> CommandGenerator:
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
    return CommandGenerator(command=words, cwd=cwd or Path.cwd(), version=version, gpus=gpus)


def existing_samples(path: Path, layout: Layout | None = None) -> ExistingSamples:
    """ExistingSamples at a path that exists."""
    if not path.exists():
        raise UserError(f"{path}: does not exist; give --samples an NPZ file or a folder of samples.")
    return ExistingSamples(
        path=path.resolve(),
        layout=layout,
        name=re.sub(r"[^\w.-]+", "-", path.resolve().stem, flags=re.ASCII) or "samples",
    )


def _sample_step(
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


def _model(path: Path) -> Path:
    """The file, or the folder where it takes several: one of safetensors, with a model card."""
    if path.is_dir() and any(path.glob("*.safetensors")) and (path / "config.json").is_file():
        return path.resolve()
    file = path / "model.pt" if path.is_dir() else path
    if not file.is_file():
        raise UserError(
            f"{file}: does not exist; give --ckpt a model file, the run folder of a finished training, or a folder "
            "that `gear convert` wrote."
        )
    return file.resolve()
