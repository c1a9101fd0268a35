"""A tokenizer in the place of a generator: it draws nothing, it reconstructs the images of a benchmark of pairs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.catalog.benchmarks import Benchmark
from harness.catalog.project import Project
from harness.contract.errors import UserError
from harness.planning.generators import gear_code_digest
from harness.planning.steps import CORE, AssetInput, FileInput, OutputOf, Resources, Source, Step


@dataclass(frozen=True, kw_only=True)
class TokenizerGenerator:
    """Any tokenizer that `gear` loads, and how its pairs are made."""

    source: Path
    code_digest: str
    """Of the code that reconstructs."""
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Changes to the benchmarks' options, by benchmark: `resize` and `ema` are this step's."""
    limit: int | None = None
    """The first so many images; None: all."""
    gpus: int = 1
    name: str = "tokenizer"
    draws_nothing: bool = True
    heeds: frozenset[str] = frozenset({"limit", "protocol image_size"})

    def describe(self) -> dict[str, Any]:
        """The file."""
        return {"name": self.name, "kind": "tokenizer", "tokenizer": str(self.source)}

    def draw(self, benchmark: Benchmark, requests: OutputOf | None) -> tuple[list[Step], Source]:
        """`python -m gear pairs IMAGES --tokenizer ... --out ...`."""
        if benchmark.form != "pairs":
            raise UserError(f"--tokenizer reconstructs and cannot draw what {benchmark.id} asks for; give --ckpt FILE.")
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
            resources=Resources(gpus=self.gpus, memory_gb=8.0),
            produces=("pairs.json",),
            benchmark=benchmark.id,
        )
        return [step], OutputOf(step.name)

    @property
    def _input(self) -> str:
        # The suffix says what kind of file it is; a folder keeps its name.
        return f"tokenizer{self.source.suffix if self.source.is_file() else ''}"


def tokenizer_generator(
    project: Project,
    source: Path,
    *,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    limit: int | None = None,
) -> TokenizerGenerator:
    """A TokenizerGenerator for a model file, a folder of one, or a run folder.

    Raises:
        UserError: nothing is there.
    """
    if not source.exists():
        raise UserError(f"{source}: does not exist; give --tokenizer a model file or the folder of one.")
    model = source / "model.pt"
    return TokenizerGenerator(
        source=(model if model.is_file() else source).resolve(),
        code_digest=gear_code_digest(project, training=True),
        options=dict(options or {}),
        limit=limit,
    )
