"""The scores of runs in forms that other programs read: CSV, Markdown, JSON, and what installed packages add."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from harness.contract.record import ScoreRecord
from harness.report.formats import format_value
from harness.store.run_record import Run


class Exporter(Protocol):
    """What the entry point of an exporter names (group `harness.exporters`)."""

    def export(self, runs: Sequence[Run]) -> str:
        """The scores of the runs as a text; UserError when they cannot be put in this form."""


def rows(runs: Sequence[Run]) -> Iterator[dict[str, Any]]:
    """One flat row per run, benchmark and metric, with the digests by which its numbers can be traced."""
    for run in runs:
        for score in run.scores.values():
            for metric in score.metrics:
                low, high = metric.interval or (None, None)
                yield {
                    "run": run.record.run,
                    "generator": run.record.generator.get("name", ""),
                    "benchmark": score.benchmark,
                    "version": score.benchmark_version,
                    "metric": metric.name,
                    "label": metric.label or metric.name,
                    "category": metric.category,
                    "value": metric.value,
                    "unit": metric.unit,
                    "higher_is_better": metric.higher_is_better,
                    "n": metric.n,
                    "interval_low": low,
                    "interval_high": high,
                    "unscored": len(score.unscored),
                    "samples": score.digests.get("samples"),
                    "requests": score.digests.get("requests"),
                }


class _Csv:
    """Comma-separated values with a header line; an absent value is an empty field."""

    def export(self, runs: Sequence[Run]) -> str:
        found, text = list(rows(runs)), io.StringIO()
        writer = csv.DictWriter(text, list(found[0]) if found else [], lineterminator="\n")
        writer.writeheader()
        writer.writerows(found)
        return text.getvalue()


class _Markdown:
    """A table per benchmark: metrics as rows, runs as columns."""

    def export(self, runs: Sequence[Run]) -> str:
        parts = []
        for benchmark in dict.fromkeys(name for run in runs for name in run.scores):
            scored = [(run.record.run, run.scores[benchmark]) for run in runs if benchmark in run.scores]
            parts.append(_markdown_table(benchmark, scored))
        return "\n".join(parts)


class _Json:
    """A list of the rows."""

    def export(self, runs: Sequence[Run]) -> str:
        return json.dumps(list(rows(runs)), indent=2, ensure_ascii=False) + "\n"


def _markdown_table(benchmark: str, scored: Sequence[tuple[str, ScoreRecord]]) -> str:
    metrics = {(m.name, m.category): m for _, score in scored for m in score.metrics}
    lines = [
        "| " + " | ".join([benchmark, *(name for name, _ in scored)]) + " |",
        "| --- |" + " ---: |" * len(scored),
    ]
    for (name, category), metric in metrics.items():
        values = []
        for _, score in scored:
            cell = next((m for m in score.metrics if (m.name, m.category) == (name, category)), None)
            values.append("" if cell is None or cell.value is None else format_value(cell.value))
        title = " ".join(filter(None, [metric.label or name, f"({category})" if category else ""]))
        lines.append("| " + " | ".join([title, *values]) + " |")
    return "\n".join(lines) + "\n"


CSV, MARKDOWN, JSON = _Csv(), _Markdown(), _Json()
