"""The score record: what a sample set was worth, with everything that went into the number.

On disk: `score.json`, and `items.jsonl` with one line per image or question, from which the metrics can be computed
again without the scorer. The package docstring lists the fields.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.contract.digest import sha256_file
from harness.contract.errors import UserError
from harness.contract.fields import Fields
from harness.contract.files import PathLike, finite, read_json, read_json_lines, write_json, write_json_lines

FORMAT = "score-record"
SCHEMA_VERSION = 1
SCORE_FILE = "score.json"
ITEMS_FILE = "items.jsonl"


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One number of a benchmark."""

    name: str
    """Short and lower case, as in benchmark.yaml: "gfid"."""
    value: float | None
    """None when it is not a finite number; a note of the record then says why."""
    higher_is_better: bool
    n: int
    """How many items went into it."""
    unit: str = ""
    category: str | None = None
    """The part of the benchmark it belongs to, e.g. "counting"; None for the whole."""
    interval: tuple[float, float] | None = None
    """95 % confidence interval, where one is known."""
    label: str | None = None
    """How to print the name, e.g. "gFID"."""

    def to_row(self) -> dict[str, Any]:
        """The metric as it stands in `score.json`."""
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
    """An item that could not be scored. It is neither a zero nor an absence: the record lists it."""

    id: str
    """Of the request, or of the question."""
    reason_class: str
    """One word to count by: "timeout", "unreadable-answer"."""
    reason: str
    """One sentence."""


@dataclass(frozen=True, kw_only=True)
class ScoreRecord:
    """The result of one scorer on one sample set."""

    benchmark: str
    benchmark_version: int
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
    notes: Sequence[str] = ()
    """Sentences a reader of the number must know."""
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        seen = set()
        for metric in self.metrics:
            key = (metric.name, metric.category)
            if key in seen:
                raise ValueError(f"the metric {metric.name!r} (category {metric.category}) stands twice in the record")
            seen.add(key)

    def metric(self, name: str, category: str | None = None) -> Metric:
        """The metric called `name` in `category`; KeyError when there is none."""
        for metric in self.metrics:
            if (metric.name, metric.category) == (name, category):
                return metric
        raise KeyError(f"{self.benchmark} has no metric {name!r} (category {category})")

    def write(self, folder: PathLike, items: Iterable[Mapping[str, Any]] = ()) -> None:
        """Write `items.jsonl`, then `score.json`, both atomically. The second vouches for the first by its sha256.

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
            "notes": [*self.notes, *(note for note in notes if note not in self.notes)],
            "items": {"count": count, "sha256": sha256_file(folder / ITEMS_FILE)},
        }
        write_json(folder / SCORE_FILE, row)

    @classmethod
    def read(cls, folder: PathLike) -> ScoreRecord:
        """Read and validate a record, the digest of its items included.

        Raises:
            UserError: naming the file and the field.
        """
        path = Path(folder) / SCORE_FILE
        if not path.is_file():
            raise UserError(f"{path}: is missing, so the scorer did not finish; run the same command again.")
        fields = Fields(read_json(path), str(path))
        fields.format(FORMAT, SCHEMA_VERSION)
        record = _read_record(fields)
        items = Fields(fields.mapping("items"), f"{path}, items")
        fields.done()
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


def _read_record(fields: Fields) -> ScoreRecord:
    where = fields.where
    metrics = [_read_metric(Fields(row, f"{where}, metric {i}")) for i, row in enumerate(fields.array("metrics"))]
    unscored = [_read_unscored(Fields(row, f"{where}, unscored {i}")) for i, row in enumerate(fields.array("unscored"))]
    digests, timings_s, notes = fields.mapping("digests"), fields.mapping("timings_s"), fields.array("notes")
    if not all(isinstance(value, str) for value in [*digests.values(), *notes]):
        raise fields.fail("'digests' and 'notes' hold text only; run the scorer again.")
    if not all(isinstance(value, int | float) for value in timings_s.values()):
        raise fields.fail("'timings_s' holds numbers only; run the scorer again.")
    try:
        return ScoreRecord(
            benchmark=fields.text("benchmark"),
            benchmark_version=fields.integer("benchmark_version", low=0),
            metrics=metrics,
            digests=digests,
            environment=fields.mapping("environment"),
            timings_s=timings_s,
            unscored=unscored,
            options=fields.mapping("options"),
            protocol=fields.mapping("protocol", {}),
            notes=notes,
        )
    except ValueError as reason:
        raise fields.fail(f"{reason}; run the scorer again.") from reason


def _read_metric(fields: Fields) -> Metric:
    interval = fields.array("interval", None)
    if interval is not None and (len(interval) != 2 or not all(isinstance(end, int | float) for end in interval)):
        raise fields.fail(f"'interval' is {interval!r}, not two numbers.")
    metric = Metric(
        name=fields.text("name"),
        value=fields.number("value", None),
        higher_is_better=fields.flag("higher_is_better"),
        n=fields.integer("n", low=0),
        unit=fields.text("unit", ""),
        category=fields.text("category", None),
        interval=None if interval is None else (float(interval[0]), float(interval[1])),
        label=fields.text("label", None),
    )
    fields.done()
    return metric


def _read_unscored(fields: Fields) -> Unscored:
    item = Unscored(id=fields.text("id"), reason_class=fields.text("reason_class"), reason=fields.text("reason"))
    fields.done()
    return item


def _check_items(path: Path, fields: Fields) -> None:
    count, digest = fields.integer("count", low=0), fields.digest("sha256")
    fields.done()
    if not path.is_file():
        raise UserError(f"{path}: is missing; copy the whole folder again, or run the scorer again.")
    if sha256_file(path) != digest or sum(1 for _ in read_json_lines(path)) != count:
        raise UserError(
            f"{path}: is not the file that {SCORE_FILE} vouches for; copy the whole folder again, or score again."
        )
