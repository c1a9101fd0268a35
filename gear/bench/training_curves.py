"""Training logs of one or several models -> the `Curves` section: the most important panels, and what they show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.report.curves import Curve, head_start, joined, read_curve
from harness.report.sections import Curves, Level, Panel, Series


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """A logged key and how its panel is labelled."""

    key: str
    title: str
    unit: str
    note: str = ""
    is_race: bool = False
    """Whether to state how much sooner a model reaches the baseline's last value."""


QUANTITIES = (
    Quantity(
        key="ce_loss",
        title="Next-token loss",
        unit="nats per token",
        note="Different tokenizers make different codes: a lower loss can also mean codes that are easier to predict.",
        is_race=True,
    ),
    Quantity(key="proj_loss_ar", title="Alignment loss, AR model", unit="negative cosine", is_race=True),
    Quantity(key="proj_loss_vq", title="Alignment loss, tokenizer", unit="negative cosine"),
    Quantity(key="reconstruction_loss", title="Reconstruction loss", unit="weighted"),
    Quantity(
        key="codebook/natural_entropy_nats",
        title="Codebook entropy",
        unit="nats",
        note="How undecided a token is between entries: the entropy of softmax(−distance).",
    ),
    Quantity(key="codebook_usage", title="Codebook usage", unit="share of entries met in a batch"),
)


def training_curves(
    logs: Mapping[str, Sequence[Path]],
    *,
    baseline: str | None = None,
    levels: Mapping[str, Mapping[str, float]] | None = None,
    title: str = "Training",
    caption: str = "",
    quantities: Sequence[Quantity] = QUANTITIES,
) -> Curves:
    """Panels for every quantity that at least one model logged.

    Args:
        logs: model -> its training logs in order; the steps of a later stage continue those of the earlier one.
        baseline: the model that the others are compared with, in sentences above the panels.
        levels: key -> model -> constant, drawn as a horizontal line, e.g. the codebook usage of a frozen tokenizer.
        title: of the section.
        caption: below the title.
        quantities: which keys to draw.

    Raises:
        UserError: a log cannot be read.
    """
    panels, findings = [], []
    for quantity in quantities:
        curves = {label: joined([read_curve(path, quantity.key) for path in paths]) for label, paths in logs.items()}
        constants = (levels or {}).get(quantity.key, {})
        if not any(len(curve) for curve in curves.values()) and not constants:
            continue
        panels.append(_panel(quantity, curves, constants))
        if quantity.is_race and baseline in curves:
            findings += _race(quantity, curves, baseline)
    return Curves(title=title, panels=tuple(panels), caption=caption, findings=tuple(findings))


def _panel(quantity: Quantity, curves: Mapping[str, Curve], constants: Mapping[str, float]) -> Panel:
    series = [Series(label=label, curve=curve) for label, curve in curves.items() if label not in constants]
    return Panel(
        title=quantity.title,
        unit=quantity.unit,
        note=quantity.note,
        series=tuple(series),
        levels=tuple(Level(label=label, value=value) for label, value in constants.items()),
    )


def _race(quantity: Quantity, curves: Mapping[str, Curve], baseline: str) -> list[str]:
    name = quantity.title[:1].lower() + quantity.title[1:]
    return [
        sentence
        for label, curve in curves.items()
        if label != baseline and (sentence := head_start(label, curve, baseline, curves[baseline], name))
    ]
