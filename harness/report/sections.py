"""What a report says, as data. A `Report` (html.py) is a title and a sequence of these; none of them knows HTML.

Pictures are uint8 arrays (n, H, W, 3). Every string may come from outside (run names, prompts, error texts) and is
escaped where it is drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from harness.contract.record import ScoreRecord
from harness.report.curves import Curve

Images = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Prose:
    """Paragraphs of plain text."""

    title: str = ""
    paragraphs: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Note:
    """Something the reader must not miss."""

    text: str
    title: str = ""
    kind: str = "note"
    """`note`, `warning` or `error`."""
    details: str = ""
    """Text to be shown unchanged, such as the last lines of a log."""

    def __post_init__(self) -> None:
        if self.kind not in ("note", "warning", "error"):
            raise ValueError(f"a Note is a note, a warning or an error, not {self.kind!r}")


@dataclass(frozen=True, kw_only=True)
class ScoreColumn:
    """One model's record in a score table."""

    label: str
    record: ScoreRecord


@dataclass(frozen=True, kw_only=True)
class Published:
    """A published result, and its protocol."""

    model: str
    source: str = ""
    protocol: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Metric name -> value; names as in benchmark.yaml."""


@dataclass(frozen=True, kw_only=True)
class ScoreTable:
    """The records of one benchmark: one column is a result, two or more are a comparison."""

    title: str
    columns: tuple[ScoreColumn, ...]
    published: tuple[Published, ...] = ()
    caption: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class Series:
    """One model's curve in a panel."""

    label: str
    curve: Curve


@dataclass(frozen=True, kw_only=True, eq=False)
class Level:
    """A model's constant in a panel: the codebook usage of a frozen tokenizer, for example."""

    label: str
    value: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Panel:
    """One plot."""

    title: str
    series: tuple[Series, ...]
    levels: tuple[Level, ...] = ()
    unit: str = ""
    """What the y axis counts, e.g. `nats per token`."""
    note: str = ""
    """What to see in this panel."""
    log_y: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class Curves:
    """Small plots side by side, one x axis, one colour per model."""

    title: str
    panels: tuple[Panel, ...]
    x_label: str = "optimizer step"
    caption: str = ""
    findings: tuple[str, ...] = ()
    """Sentences computed from the curves, shown above them."""


@dataclass(frozen=True, kw_only=True, eq=False)
class GridRow:
    """Pictures that belong together, with a title for all of them."""

    label: str
    images: Images


@dataclass(frozen=True, kw_only=True, eq=False)
class ModelGrid:
    """One model's grid of samples."""

    label: str
    rows: tuple[GridRow, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Grid:
    """Sample grids, one per model, rows = classes."""

    title: str
    models: tuple[ModelGrid, ...]
    caption: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class Pairs:
    """Originals in the first row, one row of reconstructions per model under them."""

    title: str
    originals: Images
    reconstructions: Mapping[str, Images]
    caption: str = ""

    def __post_init__(self) -> None:
        for label, images in self.reconstructions.items():
            if len(images) != len(self.originals):
                raise ValueError(f"{label}: {len(images)} reconstructions of {len(self.originals)} originals")


@dataclass(frozen=True, kw_only=True, eq=False)
class Gallery:
    """Single pictures, each with its own text under it: text-to-image samples and their prompts."""

    title: str
    images: Images
    captions: Sequence[str]
    caption: str = ""


@dataclass(frozen=True, kw_only=True)
class Timing:
    """How long one stage took."""

    stage: str
    seconds: float | None
    """None when nothing was measured."""
    status: str = ""
    """`cached`, `failed`, ...: shown beside the name."""
    ran: bool = True
    """False for a cached result: its bar is outlined, and the total leaves it out."""
    model: str = ""


@dataclass(frozen=True, kw_only=True)
class Timings:
    """Where the time went."""

    title: str
    timings: tuple[Timing, ...]
    caption: str = ""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """A group of names and values: digests, versions, seeds, one configuration."""

    title: str
    values: Mapping[str, object]
    """Nested mappings are shown with dotted names."""


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Everything needed to get the same numbers."""

    title: str = "Provenance"
    commands: tuple[str, ...] = ()
    facts: tuple[Facts, ...] = ()
    caption: str = ""


Section = Prose | Note | ScoreTable | Curves | Grid | Pairs | Gallery | Timings | Provenance


def class_grid(
    label: str,
    images: Images,
    labels: Sequence[int] | NDArray[np.integer],
    names: Sequence[str] = (),
    *,
    per_class: int = 8,
) -> ModelGrid:
    """Sort a model's samples into rows by class: the first `per_class` of each, in the order they were drawn.

    Args:
        label: the model.
        images: (n, H, W, 3) uint8.
        labels: n class ids.
        names: name of class i at i; the id where it is missing.
        per_class: samples in a row, at most.
    """
    ids = np.asarray(labels)
    if len(ids) != len(images):
        raise ValueError(f"{len(images)} images but {len(ids)} labels")
    rows = []
    for class_id in np.unique(ids).tolist():
        name = names[class_id] if 0 <= class_id < len(names) else str(class_id)
        rows.append(GridRow(label=name, images=images[ids == class_id][:per_class]))
    return ModelGrid(label=label, rows=tuple(rows))
