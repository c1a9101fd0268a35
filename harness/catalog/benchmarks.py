"""`benchmarks/*/benchmark.yaml` and `interface.py` read into `Benchmark`s: what is drawn, how, and who scores it.

Everything the runner knows about a benchmark is in its folder; a new benchmark is a new folder and nothing else.
"""

from __future__ import annotations

import functools
import importlib.util
import itertools
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal, Protocol

from harness.catalog.assets import Asset, read_assets
from harness.catalog.plugins import asset_lists
from harness.catalog.project import Project
from harness.contract.digest import digest_json
from harness.contract.errors import UserError, pick
from harness.contract.fields import Within, build, field_types
from harness.contract.interface import MetricSpec, ScorerOptions
from harness.contract.items import RECOMPUTE_FILE, ItemSource, ItemValue, Row
from harness.contract.layouts import Layout
from harness.contract.record import Metric
from harness.contract.requests import SamplingProtocol
from harness.contract.yaml import read_yaml

INTERFACE_FILE = "interface.py"


@dataclass(frozen=True, kw_only=True)
class FeatureStage:
    """A feature stage of a scorer (`harness.scoring.scorer`): a separate step, stored under a key of fewer inputs."""

    name: Annotated[str, Within(1)]
    samples: bool = False
    """Whether it reads the samples. A stage that does not is shared by all scores with the same assets and options, and
    begins once the stages that do have checked the samples."""
    first: bool = False
    """Whether the others wait until it has finished: it checks, in seconds, what the score would refuse in the end."""
    assets: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    """Names of the scorer's options that it depends on."""


@dataclass(frozen=True, kw_only=True)
class ServiceSpec:
    """A program that the scorer asks, such as a judge; the harness can run it beside the scorer, in the same step.

    `SCRIPT --model DIR --options FILE` serves until it is ended, and prints `HARNESS_JUDGE_URL=ADDRESS` on a line of
    its own once it has answered a question; with `--probe ADDRESS` besides, it asks one there and ends with 0 or not.
    """

    script: Annotated[str, Within(1)]
    """File in the folder of the scorer; runs on the scorer's interpreter."""
    lock: Annotated[str, Within(1)]
    """Project-relative lock file of what it starts, for the runtimes without containers: its programs are on PATH. In a
    container, the scorer's image has to have them there."""
    python: str | None = None
    """Python version the lock was made for; None: the one the harness runs on."""
    model_option: str | None = None
    """The scorer's option that names the model: unless it is set, it becomes the served model's name."""
    revision_option: str | None = None
    """Its option for the model's revision: unless it is set, the commit of a model of the hub."""
    gpus: Annotated[int, Within(0)] = 0
    memory_gb: Annotated[float, Within(0)] = 4.0
    cpus: Annotated[int, Within(1)] = 1


@dataclass(frozen=True, kw_only=True)
class ScorerVariant:
    """What is different about running a scorer when options have certain values, such as another library's lock."""

    when: Annotated[Mapping[str, Any], Within(1)]
    """Option -> value; all of them."""
    lock: str | None = None
    """In place of the scorer's, and so are the others; None: as the scorer says."""
    gpus: Annotated[int, Within(0)] | None = None
    memory_gb: float | None = None
    cpus: Annotated[int, Within(1)] | None = None

    def applies(self, options: Mapping[str, Any]) -> bool:
        """Whether the options have its values."""
        return has_options(options, self.when)

    def of(self, scorer: ScorerSpec) -> ScorerSpec:
        """The scorer with what is different."""
        changes = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "when"}
        return replace(scorer, **{name: value for name, value in changes.items() if value is not None})


@dataclass(frozen=True, kw_only=True)
class ScorerSpec:
    """How the scorer of a benchmark is run."""

    script: Annotated[str, Within(1)]
    """File in the folder of the scorer."""
    image: str | None = None
    """Folder under `docker/`; None: `docker/scorer`, built for the scorer's folder."""
    of: str | None = None
    """The benchmark whose folder holds script and lock, if it is another one; None: this one."""
    lock: str | None = None
    """Lock file in that folder, for the runtimes without containers; None: the harness's own environment."""
    python: str | None = None
    """Python version the lock was made for, such as "3.11"; None: the one the harness runs on."""
    gpus: Annotated[int, Within(0)] = 0
    """GPUs it can use; 0: it always runs on the CPU."""
    memory_gb: float = 4.0
    cpus: Annotated[int, Within(1)] = 1
    timeout_s: float = 7200.0
    network: bool = False
    """Whether it talks to a service (a judge). Everything else runs without a network."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """Environment variables that it requires, each with what to set it to; checked before the first step."""
    service: ServiceSpec | None = None
    """What it asks, if the harness can run that; the scorer then has to continue (`resumes`) where it was cut off."""
    resumes: bool = False
    """Whether it continues from what an interrupted attempt left in its output folder."""
    stages: tuple[FeatureStage, ...] = ()
    """Features that are computed before the score, each in a step of its own."""
    variants: Mapping[str, ScorerVariant] = field(default_factory=dict)
    """By name; the first whose options are given applies."""


@dataclass(frozen=True, kw_only=True)
class _RequestNames:
    """The names that `requests` refers to; the rest of it belongs to its kind."""

    kind: str = ""
    script: str | None = None
    assets: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class OptionAssets:
    """Assets that the scorer reads with certain options only."""

    options: Mapping[str, Any]
    """Name -> value of the options that ask for them."""
    assets: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class BenchmarkFile:
    """What a benchmark.yaml says."""

    id: Annotated[str, Within(1)]
    version: Annotated[int, Within(0)]
    """Part of every score's key; a higher one says that numbers are not comparable with older ones."""
    title: Annotated[str, Within(1)]
    summary: Annotated[str, Within(1)]
    suites: tuple[str, ...] = ()
    condition: Literal["class", "text", "image"]
    requests: Mapping[str, Any]
    """What to draw; `harness.scoring.make_requests` reads it. Its `options` are taken from the scorer's options of the
    same name."""
    protocol: SamplingProtocol
    form: Literal["npz", "png", "pairs"]
    """Of the sample set; "pairs" are originals and reconstructions instead of one."""
    scorer: ScorerSpec
    options: Mapping[str, Any] = field(default_factory=dict)
    """For a scorer of another benchmark (`scorer.of`): the defaults that differ from that benchmark's."""
    assets: tuple[str, ...] = ()
    """What the scorer reads."""
    assets_if: tuple[OptionAssets, ...] = ()
    """What it reads besides, depending on its options."""
    layouts: Mapping[str, Layout] = field(default_factory=dict)
    """Folders of the original scorer, by the name that `--layout` takes."""
    published: tuple[Mapping[str, Any], ...] = ()
    """Numbers from papers: model, source, protocol, metrics; and `options`, where they compare only with scores that
    have the same values of these."""
    check: Mapping[str, Any] = field(default_factory=dict)
    """The gold check: a small shipped case with a known answer."""


@dataclass(frozen=True, kw_only=True)
class Benchmark(BenchmarkFile):
    """One folder under `benchmarks/`: its benchmark.yaml and its interface.py."""

    options: Mapping[str, Any] = field(default_factory=dict)
    """Every option of the scorer with its default; `--set id.name=value` changes one."""
    options_type: type[ScorerOptions] = ScorerOptions
    metrics: tuple[MetricSpec, ...] = ()
    folder: Path = Path()
    variant: str = ""
    """The scorer's variant that `scorer` already is; "": none."""

    def as_variant(self, name: str) -> Benchmark:
        """This benchmark with the scorer's variant of that name; itself for "" and where it is that already."""
        if name == self.variant:
            return self
        return replace(self, scorer=self.scorer.variants[name].of(self.scorer), variant=name)

    def for_options(self, options: Mapping[str, Any]) -> Benchmark:
        """This benchmark with the variant of its scorer that the options call for.

        Args:
            options: all of them, by name.
        """
        return self.as_variant(next((n for n, one in self.scorer.variants.items() if one.applies(options)), ""))

    def read_options(self, changes: Mapping[str, Any]) -> ScorerOptions:
        """The scorer's options with the user's changes.

        Raises:
            UserError: there is no such option, or it cannot have this value.
        """
        self.options_type.read(changes, self.id)  # alone first: a message is about what the user typed
        return self.options_type.read({**self.options, **changes}, self.id)

    @property
    def needed_assets(self) -> tuple[str, ...]:
        """Everything a run with the default options reads from outside: prompts and what the scorer needs."""
        return tuple(dict.fromkeys([*map(str, self.requests.get("assets", ())), *self.scorer_assets(self.options)]))

    def scorer_assets(self, options: Mapping[str, Any]) -> tuple[str, ...]:
        """What the scorer reads with these options."""
        others = [row.assets for row in self.assets_if if has_options(options, row.options)]
        return tuple(dict.fromkeys(itertools.chain(self.assets, *others)))

    def layout(self, name: str) -> Layout:
        """The layout called `name`; UserError suggests near names."""
        found: Layout = pick(self.layouts, name, f"layout of {self.id}", f"benchmarks/{self.id}/benchmark.yaml")
        return found


def has_options(options: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether `options` have every value that is wanted."""
    return all(name in options and options[name] == value for name, value in wanted.items())


class Catalog:
    """All benchmarks and all assets of a project, by name."""

    def __init__(self, benchmarks: Iterable[Benchmark], assets: Mapping[str, Asset]) -> None:
        self.benchmarks = {benchmark.id: benchmark for benchmark in benchmarks}
        self.assets = dict(assets)

    @classmethod
    def load(cls, project: Project) -> Catalog:
        """Read every benchmark folder; a broken file is an error, never a silently missing benchmark."""
        assets = read_assets([*project.asset_files(), *asset_lists()])
        return cls(map(read_benchmark, project.benchmark_files()), assets)

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


def read_benchmark(path: Path) -> Benchmark:
    """Read and validate one benchmark.yaml and its interface.py.

    Raises:
        UserError: naming the file and the field.
    """
    file = build(BenchmarkFile, read_yaml(path), str(path))
    if file.id != path.parent.name:
        raise UserError(f"{path}: id '{file.id}' is not the folder's name '{path.parent.name}'; make them equal.")
    names = {name: file.requests[name] for name in field_types(_RequestNames) if name in file.requests}
    requests = build(_RequestNames, names, str(path), path="requests")
    if requests.kind == "script" and not (path.parent / str(requests.script)).is_file():
        raise UserError(f"{path}: requests.script names no file in this folder; correct the name.")
    owner = path.parent.parent / file.scorer.of if file.scorer.of else path.parent
    service = file.scorer.service
    locks = [file.scorer.lock, *(variant.lock for variant in file.scorer.variants.values())]
    for name in filter(None, (file.scorer.script, *locks, service.script if service else None)):
        if not (owner / name).is_file():
            raise UserError(f"{path}, scorer: {owner / name} does not exist; correct the name or add the file.")
    own = path.parent / INTERFACE_FILE
    if service and not file.scorer.resumes:
        raise UserError(f"{path}: scorer.service needs a scorer that continues; make it so, and write resumes: true.")
    options_type, metrics = read_interface(own if own.is_file() else owner / INTERFACE_FILE)
    values = {**vars(file), "options": _defaults(file, options_type, path)}
    return Benchmark(**values, options_type=options_type, metrics=metrics, folder=path.parent)


def _defaults(file: BenchmarkFile, options_type: type[ScorerOptions], path: Path) -> dict[str, Any]:
    """Every option with its default, after checking the option names in benchmark.yaml."""
    if file.options and not file.scorer.of:
        names = ", ".join(file.options)
        raise UserError(f"{path}: options are declared in {INTERFACE_FILE}; move these there: {names}.")
    defaults = options_type.read(file.options, file.id).as_mapping()
    named: dict[str, Iterable[str]] = {f"scorer.stages, {one.name}": one.options for one in file.scorer.stages}
    named |= {f"scorer.variants, {name}": variant.when for name, variant in file.scorer.variants.items()}
    if service := file.scorer.service:
        named["scorer.service"] = tuple(filter(None, (service.model_option, service.revision_option)))
    for where, names in {**named, "requests": file.requests.get("options", ())}.items():
        unknown = [name for name in names if name not in defaults]
        if unknown:
            raise UserError(
                f"{path}: {where} names the option '{unknown[0]}', which {INTERFACE_FILE} does not have; it has: "
                f"{', '.join(defaults) or 'none'}."
            )
    conditions = {"assets_if": [row.options for row in file.assets_if], "published": map(_options_of, file.published)}
    for where, wanted in [(where, row) for where, rows in conditions.items() for row in rows]:
        try:
            options_type.read(wanted, file.id)
        except UserError as error:
            raise UserError(f"{path}: {where} names options that the scorer cannot have ({error})") from error
    return defaults


def _options_of(published: Mapping[str, Any]) -> Mapping[str, Any]:
    options = published.get("options", {})
    return options if isinstance(options, Mapping) else {str(options): None}


def read_interface(path: Path) -> tuple[type[ScorerOptions], tuple[MetricSpec, ...]]:
    """`Options` and `METRICS` of an interface.py.

    Raises:
        UserError: the file is missing, cannot be run, or does not have the two.
    """
    if not path.is_file():
        raise UserError(f"{path}: is missing; write one with Options and METRICS (see harness/contract/interface.py).")
    module = _module(path, path.stat().st_mtime_ns)
    options_type, metrics = getattr(module, "Options", None), getattr(module, "METRICS", None)
    if not (isinstance(options_type, type) and issubclass(options_type, ScorerOptions)):
        raise UserError(f"{path}: has no class Options; derive one from harness.contract.interface.ScorerOptions.")
    if not isinstance(metrics, tuple) or not all(isinstance(metric, MetricSpec) for metric in metrics):
        raise UserError(f"{path}: has no METRICS; write a tuple of harness.contract.interface.MetricSpec.")
    return options_type, metrics


class Recompute(Protocol):
    """The recompute.py of a benchmark: what follows from its items without the scorer (`harness.contract.items`)."""

    def metrics_from_items(self, items: Sequence[Row], source: ItemSource) -> list[Metric]:
        """The metrics that need nothing but the items; its scorer calls the same function."""

    def values_from_items(self, items: Sequence[Row], source: ItemSource) -> Iterator[ItemValue]:
        """What each item adds to each of them."""


def read_recompute(benchmark: Benchmark) -> Recompute | None:
    """The recompute.py beside a benchmark's scorer; None where a benchmark has no number that follows from its items.

    Raises:
        UserError: the file cannot be run, or lacks one of the two functions.
    """
    owner = benchmark.folder.parent / benchmark.scorer.of if benchmark.scorer.of else benchmark.folder
    path = owner / RECOMPUTE_FILE
    if not path.is_file():
        return None
    _make_importable(owner.parent)
    module: Any = _module(path, path.stat().st_mtime_ns)
    for name in ("metrics_from_items", "values_from_items"):
        if not callable(getattr(module, name, None)):
            raise UserError(f"{path}: has no function {name}; write it (see harness/contract/items.py).")
    found: Recompute = module
    return found


def _make_importable(folder: Path) -> None:
    """Make each folder in it a `benchmarks.<id>`, as which scorers import their own, wherever it lies."""
    try:
        package = importlib.import_module("benchmarks")
    except ImportError:
        package = sys.modules["benchmarks"] = ModuleType("benchmarks")
        package.__path__ = []
    if str(folder) not in package.__path__:
        package.__path__ = [*package.__path__, str(folder)]


@functools.lru_cache(maxsize=256)
def _module(path: Path, changed_ns: int) -> ModuleType:
    """The file as a separate module; `changed_ns` makes an edited file a new one."""
    name = f"harness_interface_{digest_json([str(path), changed_ns])[:16]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look up their annotations there
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise UserError(f"{path}: cannot be loaded ({type(error).__name__}: {error}); correct the file.") from error
    return module
