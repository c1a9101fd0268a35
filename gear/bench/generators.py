"""GEAR as a generator of the harness: models that sample (`--ckpt`), tokenizers that reconstruct (`--tokenizer`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gear.bench import memory
from harness.catalog.benchmarks import Benchmark
from harness.catalog.project import Project
from harness.contract.errors import UserError
from harness.planning.generators import DrawContext, DrawOption, sample_step
from harness.planning.steps import AssetInput, Environment, FileInput, OutputOf, Resources, Source, Step

CORE = Environment(name="core", image="core")
"""Where GEAR trains and samples: the image `core`, or the environment that the harness itself runs in."""

TRAINING_ONLY = (
    "gear/training",
    "gear/losses",
    "gear/teachers",
    "gear/data",
    "harness/scoring/networks",  # teachers and monitors
    "gear/align.py",
    "gear/cli",
    "gear/bench",
)
"""Code of gear that cannot change a sample; editing it must not invalidate samples."""


DRAWING_OPTIONS = ("dtype", "ema", "rounding", "tile", "trained-size")
"""Options of `gear sample` that affect the pixels and are not part of a request set."""


def gear_code_digest(project: Project, *, training: bool = False) -> str:
    """Digest of the code of gear that affects a sample; with `training`, also of the code that affects training."""
    files = project.code_files(["gear", "harness/contract", "harness/scoring/networks"])
    return project.code_digest([name for name in files if training or not name.startswith(TRAINING_ONLY)])


@dataclass(frozen=True, kw_only=True)
class GearGenerator:
    """A GEAR model: the AR checkpoint, and the tokenizer's if that is a separate file."""

    ckpt: Path
    vq_ckpt: Path | None = None
    text_encoder: Path | None = None
    """Folder of a text-to-image model's encoder; None: it comes with a package. Steps run without the hub's cache."""
    code_digest: str
    """Digest of the code that samples: after an edit there, images are sampled again."""
    options: Mapping[str, str] = field(default_factory=dict)
    """Options of `gear sample` out of DRAWING_OPTIONS, such as {"dtype": "bf16", "ema": "false"}."""
    gpus: int = 1
    """GPUs that sample in parallel, one process on each; the images do not depend on it."""
    memory_gb: float | None = None
    """As the user says; None: computed from the models."""
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
        # The model keeps its file name: for a published one, nothing else gives the image size (c2i_B_384.pt).
        files = {"ckpt": (self.ckpt, f"model-{self.ckpt.name}" if self.ckpt.is_dir() else self.ckpt.name)}
        if self.vq_ckpt is not None:
            files["vq-ckpt"] = (self.vq_ckpt, f"vq-ckpt{self.vq_ckpt.suffix}")
        if self.text_encoder is not None:
            files["text-encoder"] = (self.text_encoder, "text-encoder")
        flags = [word for name, (_, seen_as) in files.items() for word in (f"--{name}", f"{{in}}/{seen_as}")]
        inputs: dict[str, Source] = {seen_as: FileInput(path) for path, seen_as in files.values()}
        for name, value in sorted(self.options.items()):
            flags += [f"--{'' if value == 'true' else 'no-'}ema"] if name == "ema" else [f"--{name}", value]
        return sample_step(
            benchmark,
            requests,
            environment=CORE,
            argv=("{python}", "-m", "gear", "sample", *flags, "--form", benchmark.form),
            inputs=inputs,
            identity={"generator": "gear", "code": self.code_digest},
            resources=Resources(gpus=self.gpus, memory_gb=self._memory_gb(benchmark), advice=memory.SAMPLING_ADVICE),
        )

    def _memory_gb(self, benchmark: Benchmark) -> float:
        models = self.ckpt, self.vq_ckpt, self.text_encoder
        return self.memory_gb or memory.sampling_memory_gb(*models, self.options, benchmark.protocol, self.gpus)


@dataclass(frozen=True, kw_only=True)
class TokenizerGenerator:
    """Any tokenizer that `gear` loads, and how its pairs are made."""

    source: Path
    code_digest: str
    """Digest of the code that reconstructs."""
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Changes to the benchmarks' options, by benchmark; this step uses `resize` and `ema`."""
    limit: int | None = None
    """Only this many images, from the first; None: all."""
    gpus: int = 1
    memory_gb: float | None = None
    """As the user says; None: computed from the tokenizer."""
    name: str = "tokenizer"
    draws_nothing: bool = True
    heeds: frozenset[str] = frozenset({"limit", "protocol image_size"})

    def describe(self) -> dict[str, Any]:
        """The file."""
        return {"name": self.name, "kind": "tokenizer", "tokenizer": str(self.source)}

    def draw(self, benchmark: Benchmark, requests: OutputOf | None) -> tuple[list[Step], Source]:
        """`python -m gear pairs IMAGES --tokenizer ... --out ...`."""
        if benchmark.form != "pairs":
            raise UserError(
                f"--tokenizer only reconstructs, but {benchmark.id} needs generated images; give --ckpt FILE."
            )
        settings = {**benchmark.options, **self.options.get(benchmark.id, {})}
        step = Step(
            name=f"reconstruct-{benchmark.id}",
            kind="pairs",
            title=f"{benchmark.id}: reconstruct",
            environment=CORE,
            argv=(
                *("{python}", "-m", "gear", "pairs", "{in}/images", "--tokenizer", f"{{in}}/{self._input}"),
                *("--image-size", str(benchmark.protocol.image_size), "--resize", str(settings["resize"])),
                *("--limit", str(self.limit or 0)),
                *("--ema" if settings["ema"] else "--no-ema", "--out", "{out}"),
            ),
            inputs={
                "images": AssetInput(str(benchmark.requests["images"])),
                self._input: FileInput(self.source),
            },
            identity={"generator": "gear", "code": self.code_digest},
            resources=Resources(gpus=self.gpus, memory_gb=self._memory_gb(benchmark), advice=memory.ADVICE),
            produces=("pairs.json",),
            benchmark=benchmark.id,
        )
        return [step], OutputOf(step.name)

    def _memory_gb(self, benchmark: Benchmark) -> float:
        return self.memory_gb or memory.reconstruction_memory_gb(self.source, benchmark.protocol.image_size)

    @property
    def _input(self) -> str:
        # The suffix says what kind of file it is; a folder keeps its name.
        return f"tokenizer{self.source.suffix if self.source.is_file() else ''}"


# --- on the command line ---------------------------------------------------------------------------------------------


class Checkpoint:
    """`--ckpt`: sample a GEAR model."""

    options = (
        DrawOption("ckpt", "GEAR model to sample: a file, a run folder, or a converted folder.", "path"),
        DrawOption("vq_ckpt", "Its tokenizer, if that is in a separate file.", "path"),
        DrawOption("text_encoder", "Folder with the weights of its text encoder.", "path", metavar="DIR"),
        DrawOption(
            "draw",
            "Options of gear sample: dtype=bf16, ema=false, trained-size=384, tile=N, rounding=nearest.",
            "assignments",
        ),
    )

    def generator(self, values: Mapping[str, Any], context: DrawContext) -> GearGenerator:
        """A generator for checkpoint files, the run folders they are in, or converted folders.

        Raises:
            UserError: a checkpoint does not exist, or `gear sample` has no such option.
        """
        options = {name: str(value) for name, value in (values.get("draw") or {}).items()}
        for name, value in options.items():
            if name not in DRAWING_OPTIONS:
                known = ", ".join(DRAWING_OPTIONS)
                raise UserError(f"--draw {name}={value}: no option named {name!r}; choose from {known}.")
            if name == "ema" and value not in ("true", "false"):
                raise UserError(f"--draw ema={value}: give true (averaged weights) or false (live ones).")
        vq_ckpt, text_encoder = values.get("vq_ckpt"), values.get("text_encoder")
        return GearGenerator(
            ckpt=_model(Path(values["ckpt"])),
            vq_ckpt=_model(Path(vq_ckpt)) if vq_ckpt else None,
            text_encoder=Path(text_encoder).resolve() if text_encoder else None,
            code_digest=gear_code_digest(context.project),
            options=options,
            gpus=context.gpus,
            memory_gb=context.memory_gb,
        )


class Reconstruct:
    """`--tokenizer`: reconstruct the images of a benchmark of pairs with any tokenizer that GEAR loads."""

    options = (DrawOption("tokenizer", "Tokenizer to score by its reconstructions: a file or a folder.", "path"),)

    def generator(self, values: Mapping[str, Any], context: DrawContext) -> TokenizerGenerator:
        """A generator of pairs for a model file, a folder of one, or a run folder.

        Raises:
            UserError: it does not exist.
        """
        return TokenizerGenerator(
            source=_model(Path(values["tokenizer"])),
            code_digest=gear_code_digest(context.project, training=True),
            options=context.options,
            limit=context.limit,
            gpus=context.gpus,
            memory_gb=context.memory_gb,
        )


CKPT = Checkpoint()
TOKENIZER = Reconstruct()


def _model(path: Path) -> Path:
    """The model's file, or its folder if it has several files: a path, a finished run's folder, a converted one.

    Raises:
        UserError: it does not exist, or it is not clear which of several files is the model.
    """
    if not path.exists():
        raise UserError(
            f"{path}: does not exist; give a model file, the run folder of a finished training, or a folder that "
            "`gear convert` wrote."
        )
    from gear.weights.locate import locate  # imports torch

    found = locate(path)
    return (found if isinstance(found, Path) else path).resolve()
