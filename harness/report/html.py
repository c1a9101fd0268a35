"""One self-contained HTML page from a sequence of sections: no script, no network, pictures and plots inside.

`Report(...).render()` turns each section into the plain dictionary its template macro draws (`_view`), numbering tables
and figures on the way. Escaping happens once, in the template (autoescape); only SVG from plots.py is passed as markup.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import singledispatch
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from harness.contract.files import write_atomically
from harness.contract.progress import format_seconds
from harness.contract.record import Metric, ScoreRecord
from harness.report import compare, images, plots
from harness.report.compare import ComparisonResult, MetricRow, value_of
from harness.report.formats import (
    format_count,
    format_interval,
    format_together,
    in_words,
    plural,
)
from harness.report.sections import (
    Curves,
    Facts,
    Gallery,
    Grid,
    Note,
    Pairs,
    Panel,
    Prose,
    Provenance,
    Published,
    ScoreTable,
    Section,
    Timings,
)

HERE = Path(__file__).parent
MOST_EXAMPLES = 5
"""How many unscored items are listed per reason."""

View = dict[str, Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class Report:
    """A page: what it is about, and its sections in reading order."""

    title: str
    subtitle: str = ""
    sections: tuple[Section, ...] = ()

    def render(self) -> str:
        """The whole page as text."""
        page = _Page(colours=_colours(self.sections))
        views = []
        for index, section in enumerate(self.sections):
            views.append({"id": f"s{index + 1}"} | _view(section, page))
        template = _environment().get_template("report.html.j2")
        css = Markup((HERE / "report.css").read_text(encoding="utf-8"))
        return template.render(title=self.title, subtitle=self.subtitle, views=views, css=css)

    def write(self, path: Path) -> Path:
        """Render to a file, atomically; returns the path."""
        text = self.render()
        with write_atomically(path, "w") as file:
            file.write(text)
        return path


@dataclass(kw_only=True)
class _Page:
    """What the sections of one page share: the colour of each model, and the table and figure numbers so far."""

    colours: Mapping[str, int]
    tables: int = 0
    figures: int = 0
    plots: int = 0

    def next_table(self) -> int:
        self.tables += 1
        return self.tables

    def next_figure(self) -> int:
        self.figures += 1
        return self.figures

    def next_plot(self) -> str:
        self.plots += 1
        return f"plot-{self.plots}"

    def model(self, label: str) -> View:
        """A model's name with its swatch; the swatch only on a page with several models."""
        told_apart = label and len(self.colours) > 1
        swatch = Markup(plots.swatch_svg(self.colours[label])) if told_apart else ""
        return {"label": label, "swatch": swatch}


def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _colours(sections: Iterable[Section]) -> dict[str, int]:
    """Model label -> colour, in order of appearance, so that a model looks the same in every section."""
    return {label: i for i, label in enumerate(dict.fromkeys(label for s in sections for label in _labels(s)))}


def _labels(section: Section) -> Iterator[str]:
    match section:
        case ScoreTable():
            yield from (column.label for column in section.columns)
        case Curves():
            for panel in section.panels:
                yield from (series.label for series in panel.series)
                yield from (level.label for level in panel.levels)
        case Grid():
            yield from (model.label for model in section.models if model.label)
        case Pairs():
            yield from section.reconstructions
        case Timings():
            yield from (timing.model for timing in section.timings if timing.model)
        case _:
            return


@singledispatch
def _view(section: object, page: _Page) -> View:
    raise TypeError(f"a report has no section of type {type(section).__name__}")


@_view.register
def _(section: Prose, page: _Page) -> View:
    return {"kind": "prose", "title": section.title, "paragraphs": section.paragraphs}


@_view.register
def _(section: Note, page: _Page) -> View:
    return {
        "kind": "note",
        "title": section.title,
        "tone": section.kind,
        "text": section.text,
        "details": section.details,
    }


# Scores


@_view.register
def _(section: ScoreTable, page: _Page) -> View:
    records = [column.record for column in section.columns]
    labels = [column.label for column in section.columns]
    rows = compare.metric_rows(records)
    compared = len(labels) > 1
    return {
        "kind": "scores",
        "title": section.title,
        "table": page.next_table() if rows else None,
        "caption": section.caption,
        "findings": compare.summary(labels, rows),
        "models": [page.model(label) for label in labels],
        "compared": compared,
        "footnote": _footnote(rows) if compared else "",
        "rows": [_score_row(row, labels) for row in rows],
        "has_units": any(row.any_metric.unit for row in rows),
        "has_intervals": any(cell and cell.interval for row in rows for cell in row.cells),
        "unscored": [view for label, record in zip(labels, records, strict=True) for view in _unscored(label, record)],
        "notes": list(dict.fromkeys(note for record in records for note in record.notes)),
        "published": _published(section, rows, page) if section.published and rows else None,
    }


def _score_row(row: MetricRow, labels: Sequence[str]) -> View:
    texts = iter(format_together([value_of(cell) for cell in row.cells if cell is not None]))
    counts = {cell.n for cell in row.cells if cell is not None}
    cells = []
    for index, cell in enumerate(row.cells):
        view = _cell(cell, next(texts)) if cell is not None else {"text": "–", "raw": "", "interval": "", "n": ""}
        cells.append(view | {"wins": row.verdict.winner == index})
    return {
        "title": row.category or row.title,
        "of": row.title if row.category else "",
        "arrow": row.arrow,
        "direction": "higher is better" if row.any_metric.higher_is_better else "lower is better",
        "unit": row.any_metric.unit,
        "n": format_count(counts.pop()) if len(counts) == 1 else "",
        "cells": cells,
        "verdict": _verdict(row, labels),
        "decided": row.verdict.result is ComparisonResult.BETTER,
    }


def _cell(metric: Metric, text: str) -> View:
    return {
        "text": text,
        "raw": "" if metric.value is None else repr(metric.value),
        "interval": format_interval(metric.interval, like=text),
        "n": format_count(metric.n),
    }


def _verdict(row: MetricRow, labels: Sequence[str]) -> str:
    if row.verdict.winner is not None:
        return labels[row.verdict.winner]
    return row.verdict.reason or row.verdict.result.value


def _footnote(rows: Sequence[MetricRow]) -> str:
    """The basis of bold type: the intervals where there are any, otherwise only the values."""
    judged = [row for row in rows if row.verdict.result in (ComparisonResult.BETTER, ComparisonResult.WITHIN_INTERVAL)]
    bare = [_name(row) for row in judged if not any(cell and cell.interval for cell in row.cells)]
    if judged and len(bare) == len(judged):
        return "No interval was measured, so a small difference may be chance."
    sentences = ["Where intervals overlap, no model is called better."] if judged else []
    if bare:
        names = in_words(list(dict.fromkeys(bare)))
        sentences.append(f"Measured without an interval, so that a small difference may be chance: {names}.")
    return " ".join(sentences)


def _name(row: MetricRow) -> str:
    return f"{row.title} by category" if row.category else row.title


def _unscored(label: str, record: ScoreRecord) -> Iterator[View]:
    for reason_class, count in Counter(item.reason_class for item in record.unscored).most_common():
        items = [item for item in record.unscored if item.reason_class == reason_class]
        yield {
            "model": label,
            "reason_class": reason_class,
            "count": count,
            "examples": [{"id": item.id, "reason": item.reason} for item in items[:MOST_EXAMPLES]],
            "more": max(0, count - MOST_EXAMPLES),
        }


def _published(section: ScoreTable, rows: Sequence[MetricRow], page: _Page) -> View:
    """Measured values in the first rows, published ones below, one column per published metric."""
    reported = {name for entry in section.published for name in entry.metrics}
    columns = [row for row in rows if row.category is None and row.name in reported]
    texts = [_published_column(row, section.published) for row in columns]
    measured = [
        {"model": column.label, "source": "", "protocol": "this report", "values": [text[i] for text in texts]}
        for i, column in enumerate(section.columns)
    ]
    others = [
        {
            "model": entry.model,
            "source": entry.source,
            "protocol": entry.protocol,
            "values": [text[len(section.columns) + i] for text in texts],
        }
        for i, entry in enumerate(section.published)
    ]
    return {
        "table": page.next_table(),
        "heads": [{"title": row.title, "arrow": row.arrow} for row in columns],
        "measured": measured,
        "others": others,
    }


def _published_column(row: MetricRow, published: Sequence[Published]) -> list[str]:
    """Measured values as elsewhere; published ones with the published digits."""
    measured = iter(format_together([value_of(cell) for cell in row.cells if cell is not None]))
    texts = ["–" if cell is None else next(measured) for cell in row.cells]
    for entry in published:
        value = entry.metrics.get(row.name)
        texts.append("–" if value is None else f"{value:.6g}")
    return texts


# Curves


@_view.register
def _(section: Curves, page: _Page) -> View:
    labels = list(dict.fromkeys(_labels(section)))
    drawn = [_panel(panel, section.x_label, page) for panel in section.panels]
    return {
        "kind": "curves",
        "title": section.title,
        "figure": page.next_figure() if any(panel["svg"] for panel in drawn) else None,
        "caption": section.caption,
        "findings": [finding for finding in section.findings if finding],
        "models": [page.model(label) for label in labels] if len(labels) > 1 else [],
        "panels": drawn,
    }


def _panel(panel: Panel, x_label: str, page: _Page) -> View:
    has_points = any(np.isfinite(series.curve.values).any() for series in panel.series) or bool(panel.levels)
    svg = ""
    if has_points:
        svg = Markup(plots.panel_svg(panel, x_label=x_label, colours=page.colours, name=page.next_plot()))
    absent = [series.label for series in panel.series if not len(series.curve)]
    return {
        "title": panel.title,
        "unit": panel.unit,
        "svg": svg,
        "note": panel.note,
        "absent": f"Not logged for {in_words(absent)}." if absent else "",
        "flaws": list(_flaws(panel)),
    }


def _flaws(panel: Panel) -> Iterator[str]:
    """What the drawn lines do not show: values that are not numbers, and log lines that could not be read."""
    for series in panel.series:
        curve = series.curve
        bad = np.flatnonzero(~np.isfinite(curve.values))
        if len(bad):
            first = f"{curve.steps[bad[0]]:,.0f}"
            yield f"{series.label}: {plural(len(bad), 'value')} not a finite number, first at step {first}."
        if curve.unreadable_lines:
            yield f"{series.label}: {plural(curve.unreadable_lines, 'line')} of the log left out: not readable."


# Pictures


@_view.register
def _(section: Grid, page: _Page) -> View:
    models = []
    for model in section.models:
        rows = [(row.label, row.images) for row in model.rows]
        models.append(page.model(model.label) | _picture_rows(rows))
    return {
        "kind": "grid",
        "title": section.title,
        "figure": page.next_figure() if any(model["picture"] for model in models) else None,
        "caption": section.caption,
        "models": models,
    }


@_view.register
def _(section: Pairs, page: _Page) -> View:
    rows = [("original", section.originals), *section.reconstructions.items()]
    drawn = _picture_rows(rows)
    return {
        "kind": "pairs",
        "title": section.title,
        "figure": page.next_figure() if drawn["picture"] else None,
        "caption": section.caption,
        "drawn": drawn,
    }


@_view.register
def _(section: Gallery, page: _Page) -> View:
    tiles = [
        {"picture": images.single(image), "words": words}
        for image, words in zip(section.images, section.captions, strict=True)
    ]
    return {
        "kind": "gallery",
        "title": section.title,
        "figure": page.next_figure() if tiles else None,
        "caption": section.caption,
        "tiles": tiles,
    }


def _picture_rows(rows: Sequence[tuple[str, images.Images]]) -> View:
    filled = [(label, row) for label, row in rows if len(row)]
    picture = images.grid([row for _, row in filled]) if filled else None
    return {"picture": picture, "row_labels": [label for label, _ in filled]}


# Time and provenance


@_view.register
def _(section: Timings, page: _Page) -> View:
    longest = max((t.seconds for t in section.timings if t.seconds), default=0.0)
    groups = []
    for model in dict.fromkeys(timing.model for timing in section.timings):
        timings = [timing for timing in section.timings if timing.model == model]
        rows = [
            {
                "stage": timing.stage,
                "text": format_seconds(timing.seconds),
                "raw": "" if timing.seconds is None else repr(timing.seconds),
                "percent": f"{100 * (timing.seconds or 0) / longest:.2f}" if longest else "0",
                "status": timing.status,
                "ran": timing.ran,
            }
            for timing in timings
        ]
        total = sum(timing.seconds or 0 for timing in timings if timing.ran)
        colour = page.colours.get(model, 0) % plots.NUM_COLOURS
        groups.append({"name": model, "colour": colour, "rows": rows, "total": format_seconds(total)})
    return {
        "kind": "timings",
        "title": section.title,
        "table": page.next_table() if groups else None,
        "caption": section.caption,
        "groups": groups,
    }


@_view.register
def _(section: Provenance, page: _Page) -> View:
    return {
        "kind": "provenance",
        "title": section.title,
        "caption": section.caption,
        "commands": section.commands,
        "facts": [{"title": facts.title, "rows": list(_facts(facts))} for facts in section.facts if facts.values],
    }


def _facts(facts: Facts) -> Iterator[View]:
    for name, value in _flat(facts.values):
        yield {"name": name, "text": value, "code": _looks_like_code(value)}


def _flat(values: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{name}.")
        else:
            yield name, _as_text(value)


def _as_text(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (str, int, float)):
        return str(value)
    return json.dumps(value, ensure_ascii=False, default=str)


def _looks_like_code(text: str) -> bool:
    """Digests, paths and data are set in a typewriter face."""
    return bool(re.fullmatch(r"(sha256:)?[0-9a-f]{12,}", text)) or "/" in text or text[:1] in ("[", "{")
