"""What a benchmark declares about its scorer in code: the options it takes, and the metrics it reports.

Each benchmark's folder has an `interface.py`:

    @dataclass(frozen=True, kw_only=True)
    class Options(ScorerOptions):
        batch_size: Annotated[int, Within(1)] = 64      # each with a docstring line: its meaning and unit
        measure: Literal["gfid", "rfid"] = "gfid"

    METRICS = (
        MetricSpec("gfid", "gFID", higher_is_better=False),
        MetricSpec("psnr", "PSNR", higher_is_better=True, unit="dB"),
    )

The scorer imports it, and the harness loads it to plan: wrong options are refused before anything runs. So it imports
nothing but `harness.contract`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, TypeVar

from harness.contract.errors import UserError
from harness.contract.fields import build
from harness.contract.record import Metric

AnyOptions = TypeVar("AnyOptions", bound="ScorerOptions")

Duplicates = Literal["refuse", "allow"]

_SHOWN = 60
"""Characters of a value that are shown in a message."""


# --- options ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class ScorerOptions:
    """The options of a scorer: `--set BENCHMARK.NAME=VALUE` changes one. A benchmark without options uses this class.

    Every field of a subclass has a default, and a type that `harness.contract.fields.build` understands.
    """

    @classmethod
    def read(cls: type[AnyOptions], values: Mapping[str, Any], benchmark: str) -> AnyOptions:
        """Options with `values` in place of defaults.

        Raises:
            UserError: the option is unknown or cannot have this value; the message names it as the user typed it.
        """
        known = [field.name for field in fields(cls)]
        for name, value in values.items():
            where = f"--set {benchmark}.{name}={_typed(value)}"
            if name not in known:
                raise UserError(f"{where}: {benchmark} has no option {name!r}; it has: {', '.join(known) or 'none'}.")
            build(cls, {name: value}, where)  # one at a time, so that the message names the one that is wrong
        return build(cls, values, f"the options of {benchmark}")

    def as_mapping(self) -> dict[str, Any]:
        """Name -> value of every option, for the record and for keys."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class ScreenedOptions(ScorerOptions):
    """The options of a scorer whose samples are screened first (`harness.scoring.screen`)."""

    duplicates: Duplicates = "refuse"
    """What to do with images that occur more than once: `refuse`, or `allow` with a note."""


@dataclass(frozen=True)
class Share:
    """A bound on a number: `Annotated[float, Share()]`."""

    def holds(self, value: float) -> bool:
        """Whether it is from 0 to 1."""
        return 0 <= value <= 1

    def __str__(self) -> str:
        return "from 0 to 1"


@dataclass(frozen=True)
class NotBlank:
    """Text with more than white space: `Annotated[str, NotBlank()]`."""

    def holds(self, value: str) -> bool:
        """Whether the text is not blank."""
        return bool(value.strip())

    def __str__(self) -> str:
        return "that is not blank"


def _typed(value: Any) -> str:
    """A value as typed after `--set NAME=`."""
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


# --- metrics ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MetricSpec:
    """A metric that a benchmark reports."""

    name: str
    label: str
    """How it is printed."""
    higher_is_better: bool
    unit: str = ""


class Metrics:
    """Makes the metrics of a record by name, so that only `METRICS` states label, unit and direction.

    metrics = Metrics(METRICS)
    metrics.make("gfid", 3.94, n=50_000)
    """

    def __init__(self, specs: Iterable[MetricSpec]) -> None:
        self.specs = {spec.name: spec for spec in specs}

    def make(
        self,
        name: str,
        value: float | None,
        *,
        n: int,
        interval: tuple[float, float] | None = None,
        category: str | None = None,
    ) -> Metric:
        """One metric of the record.

        Args:
            name: of a `MetricSpec`; KeyError when there is none.
            value: None or not finite where there is no number.
            n: items that went into it.
            interval: 95 % confidence interval.
            category: the part of the benchmark it is of; None: the whole.
        """
        spec = self.specs[name]
        return Metric(
            name=name,
            value=value,
            higher_is_better=spec.higher_is_better,
            n=n,
            unit=spec.unit,
            category=category,
            interval=interval,
            label=spec.label,
        )
