"""The score record: the metrics of a sample set, with everything that went into them.

On disk: `score.json`, and `items.jsonl` with one line per image or question, from which the metrics can be computed
again without the scorer. The package docstring lists the fields.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from harness.contract.digest import sha256_file
from harness.contract.errors import UserError
from harness.contract.fields import Digest, Text, Within, build
from harness.contract.files import PathLike, finite, read_head, read_json_lines, write_json, write_json_lines

FORMAT = "score-record"
SCHEMA_VERSION = 1
SCORE_FILE = "score.json"
ITEMS_FILE = "items.jsonl"


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One number of a benchmark."""

    name: Text
    """Short and lower case, as in benchmark.yaml: "gfid"."""
    value: float | None
    """None when it is not a finite number; a note of the record then says why."""
    higher_is_better: bool
    n: Annotated[int, Within(0)]
    """How many items went into it."""
    unit: str = ""
    category: Text | None = None
    """The part of the benchmark it belongs to, e.g. "counting"; None for the whole."""
    interval: tuple[float, float] | None = None
    """95 % confidence interval, where one is known."""
    label: Text | None = None
    """How to print the name, e.g. "gFID"."""

    @property
    def title(self) -> str:
        """The name for people, with the part of the benchmark: "GenEval (counting)"."""
        label = self.label or self.name
        return f"{label} ({self.category})" if self.category else label

    def to_row(self) -> dict[str, Any]:
        """The metric as written in `score.json`."""
        return {
            "name": self.name,
            "label": self.label,
            "value": self.value,
            "unit": self.unit,
            "higher_is_better": self.higher_is_better,
            "n": self.n,
            "category": self.category,
            "interval": None if self.interval is None else list(self.interval),
        }


@dataclass(frozen=True, kw_only=True)
class Unscored:
    """An item that could not be scored. It counts neither as zero nor as absent: the record lists it."""

    id: Text
    """Of the request, or of the question."""
    reason_class: Text
    """One word to count by: "timeout", "unreadable-answer"."""
    reason: Text
    """One sentence."""


@dataclass(frozen=True, kw_only=True)
class _Items:
    """What `score.json` states about `items.jsonl`."""

    count: Annotated[int, Within(0)]
    sha256: Digest


@dataclass(frozen=True, kw_only=True)
class ScoreRecord:
    """The result of one scorer on one sample set."""

    benchmark: Text
    benchmark_version: Annotated[int, Within(0)]
    metrics: Sequence[Metric]
    digests: Mapping[str, str] = field(default_factory=dict)
    """Every digest that went in: "samples", "requests", "asset:<name>", ..."""
    environment: Mapping[str, Any] = field(default_factory=dict)
    """Python, library versions, GPU, driver, image or lock digest."""
    timings_s: Mapping[str, float] = field(default_factory=dict)
    """Seconds by stage."""
    unscored: Sequence[Unscored] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    """The options the scorer ran with, defaults included."""
    protocol: Mapping[str, Any] = field(default_factory=dict)
    """How the samples were drawn (cfg_scale, temperature, ...), as their requests say; empty where nothing says it."""
    images: Mapping[str, str] = field(default_factory=dict)
    """Where number and size of the images move the numbers: whose ("samples", "reference") -> "50,000 of 256 x 256 px".
    Records in which these differ do not compare."""
    notes: Sequence[str] = ()
    """Sentences a reader of the number must know."""
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        seen = set()
        for metric in self.metrics:
            key = (metric.name, metric.category)
            if key in seen:
                raise ValueError(f"the metric {metric.name!r} (category {metric.category}) occurs twice; give it once")
            seen.add(key)

    def metric(self, name: str, category: str | None = None) -> Metric:
        """The metric called `name` in `category`; KeyError when there is none."""
        for metric in self.metrics:
            if (metric.name, metric.category) == (name, category):
                return metric
        raise KeyError(f"{self.benchmark} has no metric {name!r} (category {category})")

    def write(self, folder: PathLike, items: Iterable[Mapping[str, Any]] = ()) -> None:
        """Write `items.jsonl`, then `score.json`, both atomically. The second holds the sha256 of the first.

        JSON has no NaN: a metric that is not finite is written as null with a note; inside items, NaN becomes null.
        """
        folder = Path(folder)
        count = write_json_lines(folder / ITEMS_FILE, (finite(item) for item in items))
        metrics, notes = _without_nan(self.metrics)
        row = {
            "format": FORMAT,
            "schema_version": self.schema_version,
            "benchmark": self.benchmark,
            "benchmark_version": self.benchmark_version,
            "metrics": [metric.to_row() for metric in metrics],
            "digests": dict(self.digests),
            "environment": finite(self.environment),
            "timings_s": finite(self.timings_s),
            "unscored": [vars(item) for item in self.unscored],
            "options": finite(self.options),
            "protocol": finite(self.protocol),
            "images": dict(self.images),
            "notes": [*self.notes, *(note for note in notes if note not in self.notes)],
            "items": vars(_Items(count=count, sha256=sha256_file(folder / ITEMS_FILE))),
        }
        write_json(folder / SCORE_FILE, row)

    @classmethod
    def read(cls, folder: PathLike, *, check_items: bool = True) -> ScoreRecord:
        """Read and validate a record, the digest of its items included.

        Args:
            folder: with `score.json` and `items.jsonl`.
            check_items: False leaves the items unread.
        Raises:
            UserError: naming the file and the field.
        """
        path = Path(folder) / SCORE_FILE
        if not path.is_file():
            raise UserError(f"{path}: is missing, so the scorer did not finish; run the same command again.")
        row = read_head(path, FORMAT, SCHEMA_VERSION)
        items = build(_Items, row.pop("items", None), str(path), path="items")
        record = build(cls, row, str(path))
        if check_items:
            _check_items(Path(folder) / ITEMS_FILE, items)
        return record


def read_items(folder: PathLike) -> Iterator[dict[str, Any]]:
    """Yield the lines of `items.jsonl` one at a time."""
    for _, row in read_json_lines(Path(folder) / ITEMS_FILE):
        yield row


def _without_nan(metrics: Sequence[Metric]) -> tuple[list[Metric], list[str]]:
    clean, notes = [], []
    for metric in metrics:
        value, interval = metric.value, metric.interval
        if value is not None and not math.isfinite(value):
            where = f" ({metric.category})" if metric.category else ""
            notes.append(f"{metric.name}{where} is not a finite number ({float(value)}) and is written as null.")
            value = None
        if interval is not None and not all(map(math.isfinite, interval)):
            interval = None
        clean.append(Metric(**{**vars(metric), "value": None if value is None else float(value), "interval": interval}))
    return clean, notes


def _check_items(path: Path, items: _Items) -> None:
    if not path.is_file():
        raise UserError(f"{path}: is missing; copy the whole folder again, or run the scorer again.")
    if sha256_file(path) != items.sha256 or sum(1 for _ in read_json_lines(path)) != items.count:
        raise UserError(
            f"{path}: does not match its sha256 in {SCORE_FILE}; copy the whole folder again, or score again."
        )
