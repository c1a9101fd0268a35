"""GEAR as a generator of the harness: models that sample (`--ckpt`), tokenizers that reconstruct (`--tokenizer`), and
published ones by name (`--preset`).

A model is looked at when the plan is made: whether its files belong together, and whether it can draw what a benchmark
asks for. What is wrong is one sentence before the first step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from gear.bench import memory
from gear.bench.environment import CORE, gear_code_digest
from gear.bench.inspection import Drawing, Tokens, find_text_encoder, inspect_pair, inspect_tokenizer
from gear.bench.origins import Origin, of_asset, of_path_or_hub
from gear.bench.released import needed_assets, released
from harness.catalog.assets import Asset
from harness.catalog.benchmarks import Benchmark
from harness.contract.errors import UserError
from harness.planning.generators import DrawContext, DrawOption, sample_step
from harness.planning.steps import AssetInput, Generator, OutputOf, Resources, Source, Step

DRAWING_OPTIONS = ("dtype", "ema", "rounding", "tile", "trained-size")
"""Options of `gear sample` that affect the pixels and are not part of a request set."""


@dataclass(frozen=True, kw_only=True)
class GearGenerator:
    """A GEAR model: the AR checkpoint, and the tokenizer's if that is a separate file."""

    ckpt: Origin
    vq_ckpt: Origin | None = None
    text_encoder: Origin | None = None
    """Folder of a text-to-image model's encoder; None: it comes with a package. Steps run without the hub's cache."""
    drawing: Drawing | None = None
    """What the model draws; None: its files are assets that are not here yet."""
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
    protocol: Mapping[str, Any] = field(default_factory=dict)

    def describe(self) -> dict[str, Any]:
        """The files and the options."""
        files = {"ckpt": self.ckpt, "vq_ckpt": self.vq_ckpt, "text_encoder": self.text_encoder}
        named = {name: None if origin is None else origin.said for name, origin in files.items()}
        return {"name": self.name, "kind": "gear", **named, "options": dict(self.options)}

    def draw(self, benchmark: Benchmark, requests: OutputOf | None) -> tuple[list[Step], Source]:
        """`python -m gear sample --ckpt ... --requests ... --out ...`, which resumes by shard.

        Raises:
            UserError: the model cannot draw what the benchmark asks for.
        """
        if self.drawing is not None:
            self.drawing.refuse(self.ckpt.said, benchmark, size_is_meant="trained-size" in self.options)
        files = {"ckpt": self.ckpt, "vq-ckpt": self.vq_ckpt, "text-encoder": self.text_encoder}
        flags: list[str] = []
        inputs: dict[str, Source] = {}
        for name, origin in files.items():
            if origin is not None:
                seen_as = _seen_as(name, origin)
                flags += [f"--{name}", f"{{in}}/{seen_as}"]
                inputs |= origin.inputs(seen_as)
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
        if self.memory_gb is not None or self.drawing is None:
            return self.memory_gb or memory.UNKNOWN_GB
        encoder = self.text_encoder.path if self.text_encoder is not None else None
        needs = replace(self.drawing.needs, text_encoder=memory.bytes_in(encoder))
        return memory.sampling_memory_gb(needs, self.options, benchmark.protocol, self.gpus)


def _seen_as(name: str, origin: Origin) -> str:
    """Its name among a step's inputs."""
    if origin.asset is not None or name == "text-encoder":
        return name
    assert origin.path is not None
    if name == "ckpt":
        # The model keeps its file name: for a published one, nothing else gives the image size (c2i_B_384.pt).
        return f"model-{origin.path.name}" if origin.path.is_dir() else origin.path.name
    return f"{name}{origin.path.suffix if origin.path.is_file() else ''}"  # which says what kind of file it is


@dataclass(frozen=True, kw_only=True)
class TokenizerGenerator:
    """Any tokenizer that `gear` loads, and how its pairs are made."""

    source: Origin
    context: DrawContext
    code_digest: str
    """Digest of the code that reconstructs."""
    name: str = "tokenizer"
    draws_nothing: bool = True
    heeds: frozenset[str] = frozenset({"limit", "protocol image_size"})

    def describe(self) -> dict[str, Any]:
        """The file."""
        return {"name": self.name, "kind": "tokenizer", "tokenizer": self.source.said}

    def draw(self, benchmark: Benchmark, requests: OutputOf | None) -> tuple[list[Step], Source]:
        """`python -m gear pairs IMAGES --tokenizer ... --out ...`.

        Raises:
            UserError: the file holds no tokenizer, or the benchmark needs generated images.
        """
        if benchmark.form != "pairs":
            raise UserError(
                f"{self.source.said} is used as a tokenizer, which only reconstructs, but {benchmark.id} needs "
                "generated images; give --ckpt FILE."
            )
        settings = {**benchmark.options, **self.context.options.get(benchmark.id, {})}
        size = benchmark.protocol.image_size
        found = inspect_tokenizer(self.source, ema=settings["ema"], context=self.context)
        if found is not None and size % (side := found.side):
            raise UserError(
                f"{self.source.said} makes tokens of {side} x {side} px, which do not fill {size} px; add --protocol "
                f"image_size={size - size % side}."
            )
        seen_as = _seen_as("tokenizer", self.source)
        step = Step(
            name=f"reconstruct-{benchmark.id}",
            kind="pairs",
            title=f"{benchmark.id}: reconstruct",
            environment=CORE,
            argv=(
                *("{python}", "-m", "gear", "pairs", "{in}/images", "--tokenizer", f"{{in}}/{seen_as}"),
                *("--image-size", str(size), "--resize", str(settings["resize"])),
                *("--limit", str(self.context.limit or 0)),
                *("--ema" if settings["ema"] else "--no-ema", "--out", "{out}"),
            ),
            inputs={"images": AssetInput(str(benchmark.requests["images"])), **self.source.inputs(seen_as)},
            identity={"generator": "gear", "code": self.code_digest},
            resources=Resources(gpus=self.context.gpus, memory_gb=self._memory_gb(found, size), advice=memory.ADVICE),
            produces=("pairs.json",),
            benchmark=benchmark.id,
        )
        return [step], OutputOf(step.name)

    def _memory_gb(self, found: Tokens | None, size: int) -> float:
        if self.context.memory_gb is not None or found is None:
            return self.context.memory_gb or memory.UNKNOWN_GB
        return memory.reconstruction_memory_gb(found.bytes, size)


# --- on the command line ---------------------------------------------------------------------------------------------


class Checkpoint:
    """`--ckpt`: sample a GEAR model."""

    options = (
        DrawOption(
            "ckpt",
            "GEAR model to sample: file, folder, or hub id.",
            metavar="SOURCE",
        ),
        DrawOption("vq_ckpt", "Its tokenizer, if that is another file.", metavar="SOURCE"),
        DrawOption("text_encoder", "Its text encoder, if that moved.", metavar="DIR"),
        DrawOption(
            "draw",
            "Options of gear sample: dtype, ema, trained-size, tile, rounding.",
            "assignments",
        ),
    )

    def generator(self, values: Mapping[str, Any], context: DrawContext) -> GearGenerator:
        """A generator for checkpoint files, the run folders they are in, converted folders, or hub ids.

        Raises:
            UserError: a file does not exist or is no model, the files do not belong together, the text encoder is not
                here, or `gear sample` has no such option.
        """
        vq_ckpt, text_encoder = values.get("vq_ckpt"), values.get("text_encoder")
        return model_generator(
            of_path_or_hub(str(values["ckpt"])),
            of_path_or_hub(str(vq_ckpt)) if vq_ckpt else None,
            options={name: str(value) for name, value in (values.get("draw") or {}).items()},
            context=context,
            text_encoder=str(text_encoder) if text_encoder else None,
        )


def model_generator(
    ckpt: Origin,
    vq_ckpt: Origin | None,
    *,
    options: Mapping[str, str],
    context: DrawContext,
    text_encoder: str | Origin | None = None,
    **more: Any,
) -> GearGenerator:
    """A generator for a model that was looked at.

    Args:
        ckpt: the AR model, with its tokenizer if `vq_ckpt` is None.
        options: out of DRAWING_OPTIONS.
        text_encoder: a folder or hub id; an asset; None: the one that the model was trained with.
        more: further fields of the generator.
    Raises:
        UserError: as for `Checkpoint.generator`.
    """
    _refuse_options(options)
    size = options.get("trained-size")
    drawing = inspect_pair(
        ckpt,
        vq_ckpt,
        ema=options.get("ema", "true") == "true",
        trained_size=None if size is None else int(size),
        context=context,
    )
    if drawing is not None:
        text_encoder = find_text_encoder(drawing, text_encoder)
    assert not isinstance(text_encoder, str)
    return GearGenerator(
        ckpt=ckpt,
        vq_ckpt=vq_ckpt,
        text_encoder=text_encoder,
        drawing=drawing,
        code_digest=gear_code_digest(context.project),
        options=options,
        gpus=context.gpus,
        memory_gb=context.memory_gb,
        **more,
    )


def _refuse_options(options: Mapping[str, str]) -> None:
    for name, value in options.items():
        if name not in DRAWING_OPTIONS:
            known = ", ".join(DRAWING_OPTIONS)
            raise UserError(f"--draw {name}={value}: no option named {name!r}; choose from {known}.")
        if name == "ema" and value not in ("true", "false"):
            raise UserError(f"--draw ema={value}: give true (averaged weights) or false (live ones).")
        if name == "trained-size" and not (value.isascii() and value.isdigit() and int(value)):
            raise UserError(f"--draw trained-size={value}: give the side of the model's images in pixels, such as 384.")


class Reconstruct:
    """`--tokenizer`: reconstruct the images of a benchmark of pairs with any tokenizer that GEAR loads."""

    options = (
        DrawOption(
            "tokenizer",
            "Tokenizer to score: file, folder, or hub id.",
            metavar="SOURCE",
        ),
    )

    def generator(self, values: Mapping[str, Any], context: DrawContext) -> TokenizerGenerator:
        """A generator of pairs for a model file, a folder of one, a run folder, or a hub id.

        Raises:
            UserError: it does not exist.
        """
        return _tokenizer_generator(of_path_or_hub(str(values["tokenizer"])), context)


def _tokenizer_generator(source: Origin, context: DrawContext, **more: Any) -> TokenizerGenerator:
    code = gear_code_digest(context.project, training=True)
    return TokenizerGenerator(source=source, context=context, code_digest=code, **more)


class Preset:
    """`--preset`: a published model or tokenizer with everything it needs, and drawn as published."""

    options = (DrawOption("preset", "Published model or tokenizer, with all it needs.", metavar="NAME"),)

    def generator(self, values: Mapping[str, Any], context: DrawContext) -> Generator:
        """A generator whose files are assets.

        Raises:
            UserError: there is no such model, or files of it that are here do not belong together.
        """
        model = released(str(values["preset"]))
        origins = {name: of_asset(asset, context.asset(asset)) for name, asset in model.assets.items()}
        if "tokenizer" in origins:
            return _tokenizer_generator(origins["tokenizer"], context, name=model.name)
        return model_generator(
            origins["ckpt"],
            origins.get("vq-ckpt"),
            options=model.draw,
            context=context,
            text_encoder=origins.get("text-encoder"),
            name=model.name,
            protocol=model.protocol,
        )

    def needed_assets(self, value: str) -> tuple[Asset, ...]:
        """The files of a published model, or those that a configuration of `gear train` reads."""
        return needed_assets(value)


CKPT = Checkpoint()
TOKENIZER = Reconstruct()
PRESET = Preset()
