"""`benchmarks/*/benchmark.yaml` read into `Benchmark`s: what is drawn, how, and who scores it.

Everything the runner knows about a benchmark is in its folder; a new benchmark is a new folder and nothing else.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from harness.catalog.assets import Asset, read_assets
from harness.catalog.project import Project
from harness.contract.errors import UserError
from harness.contract.fields import Fields
from harness.contract.layouts import Layout
from harness.contract.requests import Protocol


@dataclass(frozen=True, kw_only=True)
class StageSpec:
    """A feature stage of a scorer (`harness.scoring.scorer`): a step of its own, kept under the digest of less."""

    name: str
    samples: bool = False
    """Whether it reads the samples; one that does not serves every score with the same assets and options, and begins
    once those that do have checked them."""
    assets: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    """Names of the scorer's options that it depends on."""


@dataclass(frozen=True, kw_only=True)
class ScorerSpec:
    """How the scorer of a benchmark is run."""

    script: str
    """File in the folder of the scorer."""
    image: str | None = None
    """Folder under `docker/`; None: `docker/scorer`, built for the scorer's folder."""
    of: str | None = None
    """The benchmark whose folder holds script and lock, where that is another one's; None: its own."""
    lock: str | None = None
    """Lock file in that folder, for the runtimes without containers; None: the harness's own environment."""
    python: str | None = None
    """Python version the lock was made for, such as "3.11"; None: the one the harness runs on."""
    gpus: int = 0
    """GPUs it makes use of; 0 runs on CPU anywhere."""
    memory_gb: float = 4.0
    cpus: int = 1
    timeout_s: float = 7200.0
    network: bool = False
    """Whether it talks to a service (a judge). Everything else runs without a network."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """Environment variables without which it cannot run, each with what to set it to; looked for before the first
    step."""
    resumes: bool = False
    """Whether it continues from what an interrupted attempt left in its output folder."""
    stages: tuple[StageSpec, ...] = ()
    """Features that are computed before the score, each in a step of its own."""
    shares: tuple[str, ...] = ()
    """Files of other benchmarks' folders that it imports, such as "benchmarks/coco/fid_inception.py"."""


@dataclass(frozen=True, kw_only=True)
class MetricSpec:
    """A metric as the benchmark declares it."""

    name: str
    label: str
    higher_is_better: bool
    unit: str = ""


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """One folder under `benchmarks/`."""

    id: str
    version: int
    """Part of every score's key; a higher one says that numbers are not comparable with older ones."""
    title: str
    summary: str
    suites: tuple[str, ...]
    condition: Literal["class", "text", "image"]
    requests: Mapping[str, Any]
    """What to draw; `harness.scoring.make_requests` reads it."""
    protocol: Protocol
    form: Literal["npz", "png", "pairs"]
    """Of the sample set; "pairs" are originals and reconstructions instead of one."""
    scorer: ScorerSpec
    options: Mapping[str, Any] = field(default_factory=dict)
    """Defaults of the scorer's options; `--set id.key=value` overrides one."""
    assets: tuple[str, ...] = ()
    """What the scorer reads."""
    layouts: Mapping[str, Layout] = field(default_factory=dict)
    """Folders of the original scorer, by the name that `--layout` takes."""
    metrics: tuple[MetricSpec, ...] = ()
    published: tuple[Mapping[str, Any], ...] = ()
    """Numbers from papers: model, source, protocol, metrics."""
    check: Mapping[str, Any] = field(default_factory=dict)
    """The gold check: a small shipped case with a known answer."""
    folder: Path = Path()

    @property
    def needed_assets(self) -> tuple[str, ...]:
        """Everything a run reads from outside: prompts and what the scorer needs."""
        return tuple(dict.fromkeys([*map(str, self.requests.get("assets", ())), *self.assets]))

    def layout(self, name: str) -> Layout:
        """The layout called `name`; UserError suggests near names."""
        found: Layout = pick(self.layouts, name, f"layout of {self.id}", f"benchmarks/{self.id}/benchmark.yaml")
        return found


class Catalog:
    """All benchmarks and all assets of a project, by name."""

    def __init__(self, benchmarks: Iterable[Benchmark], assets: Mapping[str, Asset]) -> None:
        self.benchmarks = {benchmark.id: benchmark for benchmark in benchmarks}
        self.assets = dict(assets)

    @classmethod
    def load(cls, project: Project) -> Catalog:
        """Read every benchmark folder; a broken file is an error, never a benchmark that silently is not there."""
        return cls(map(read_benchmark, project.benchmark_files()), read_assets(project.asset_files()))

    def benchmark(self, name: str) -> Benchmark:
        """The benchmark called `name`; UserError suggests near names."""
        return pick(self.benchmarks, name, "benchmark", "harness ls")

    def asset(self, name: str) -> Asset:
        """The asset called `name`; UserError suggests near names."""
        return pick(self.assets, name, "asset", "harness assets ls")

    def suite(self, name: str) -> list[Benchmark]:
        """The benchmarks of a suite, by name of benchmark."""
        suites = sorted({suite for benchmark in self.benchmarks.values() for suite in benchmark.suites})
        pick(dict.fromkeys(suites), name, "suite", "harness ls")
        return [benchmark for benchmark in self.benchmarks.values() if name in benchmark.suites]


def pick(things: Mapping[str, Any], name: str, what: str, command: str) -> Any:
    """`things[name]`, or a UserError that suggests the nearest names."""
    if name in things:
        return things[name]
    near = difflib.get_close_matches(name, things, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(things) or 'none'}."
    raise UserError(f"There is no {what} '{name}'; {hint} List them: {command}")


def read_benchmark(path: Path) -> Benchmark:
    """Read and validate one benchmark.yaml.

    Raises:
        UserError: naming the file and the field.
    """
    fields = Fields(read_yaml(path), str(path))
    benchmark = Benchmark(
        id=fields.text("id"),
        version=fields.integer("version", low=0),
        title=fields.text("title"),
        summary=fields.text("summary"),
        suites=_texts(fields, "suites"),
        condition=fields.choice("condition", ["class", "text", "image"]),
        requests=fields.mapping("requests"),
        protocol=_protocol(Fields(fields.mapping("protocol"), f"{path}, protocol"), str(path)),
        form=fields.choice("form", ["npz", "png", "pairs"]),
        scorer=_scorer(Fields(fields.mapping("scorer"), f"{path}, scorer"), path.parent),
        options=fields.mapping("options", {}),
        assets=_texts(fields, "assets"),
        layouts=_layouts(fields.mapping("layouts", {}), path),
        metrics=tuple(_metric(row, f"{path}, metrics") for row in fields.array("metrics", [])),
        published=tuple(fields.array("published", [])),
        check=fields.mapping("check", {}),
        folder=path.parent,
    )
    fields.done()
    if benchmark.id != path.parent.name:
        raise UserError(f"{path}: id '{benchmark.id}' is not the folder's name '{path.parent.name}'; make them equal.")
    if (
        benchmark.requests.get("kind") == "script"
        and not (path.parent / str(benchmark.requests.get("script"))).is_file()
    ):
        raise UserError(f"{path}: requests.script names no file of this folder; correct the name.")
    return benchmark


def read_yaml(path: Path) -> Any:
    """Parse a YAML file with the safe loader; UserError names the file and line."""
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(
            f"{path}: cannot be read as YAML ({' '.join(str(error).split())}); correct the file."
        ) from error


def _scorer(fields: Fields, folder: Path) -> ScorerSpec:
    scorer = ScorerSpec(
        script=fields.text("script"),
        of=fields.text("of", None),
        image=fields.text("image", None),
        lock=fields.text("lock", None),
        python=fields.text("python", None),
        gpus=fields.integer("gpus", low=0, default=0),
        memory_gb=fields.number("memory_gb", 4.0),
        cpus=fields.integer("cpus", low=1, default=1),
        timeout_s=fields.number("timeout_s", 7200.0),
        network=fields.flag("network", False),
        variables={name: str(meaning) for name, meaning in fields.mapping("variables", {}).items()},
        resumes=fields.flag("resumes", False),
        stages=tuple(_stage(row, fields.where) for row in fields.array("stages", [])),
        shares=_texts(fields, "shares"),
    )
    fields.done()
    folder = folder.parent / scorer.of if scorer.of else folder
    for name in (scorer.script, scorer.lock):
        if name is not None and not (folder / name).is_file():
            raise fields.fail(f"{folder / name} does not exist; correct the name or add the file.")
    return scorer


def _stage(row: Any, where: str) -> StageSpec:
    fields = Fields(row, f"{where}, stages")
    stage = StageSpec(
        name=fields.text("name"),
        samples=fields.flag("samples", False),
        assets=_texts(fields, "assets"),
        options=_texts(fields, "options"),
    )
    fields.done()
    return stage


def _protocol(fields: Fields, where: str) -> Protocol:
    try:
        protocol = Protocol(
            image_size=fields.integer("image_size", low=1),
            cfg_scale=fields.number("cfg_scale", 1.0),
            cfg_interval=fields.number("cfg_interval", -1.0),
            temperature=fields.number("temperature", 1.0),
            top_k=fields.integer("top_k", low=0, default=0),
            top_p=fields.number("top_p", 1.0),
        )
    except UserError as error:
        raise error if str(error).startswith(where) else UserError(f"{where}: {error}") from None
    fields.done()
    return protocol


def _layouts(rows: Mapping[str, Any], path: Path) -> dict[str, Layout]:
    return {str(name): Layout.from_mapping(row, f"{path}, layout {name}") for name, row in rows.items()}


def _metric(row: Any, where: str) -> MetricSpec:
    has_no_unit = isinstance(row, Mapping) and row.get("unit") == ""
    fields = Fields({**row, "unit": None} if has_no_unit else row, where)
    name = fields.text("name")
    metric = MetricSpec(
        name=name,
        label=fields.text("label", name),
        higher_is_better=fields.flag("higher_is_better"),
        unit=fields.text("unit", None) or "",
    )
    fields.done()
    return metric


def _texts(fields: Fields, name: str) -> tuple[str, ...]:
    values = fields.array(name, [])
    if not all(isinstance(value, str) and value for value in values):
        raise fields.fail(f"'{name}' holds something that is not text; write a list of names.")
    return tuple(values)
