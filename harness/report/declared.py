"""What benchmark.yaml declares about a score: labels, units, and the values that others published."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from harness.contract.record import ScoreRecord
from harness.report.sections import Published

if TYPE_CHECKING:
    from harness.catalog.benchmarks import Benchmark


def labelled(score: ScoreRecord, benchmark: Benchmark | None) -> ScoreRecord:
    """The record with the labels and units of benchmark.yaml where the scorer gave none."""
    if benchmark is None:
        return score
    known = {spec.name: spec for spec in benchmark.metrics}
    metrics = []
    for metric in score.metrics:
        spec = known.get(metric.name)
        if spec:
            metric = dataclasses.replace(metric, label=metric.label or spec.label, unit=metric.unit or spec.unit)
        metrics.append(metric)
    return dataclasses.replace(score, metrics=tuple(metrics))


def published_by(benchmark: Benchmark | None) -> tuple[Published, ...]:
    """The published values that benchmark.yaml lists."""
    entries = benchmark.published if benchmark else ()
    return tuple(
        Published(
            model=str(entry.get("model", "")),
            source=str(entry.get("source", "")),
            protocol=_protocol_text(entry.get("protocol", "")),
            metrics=dict(entry.get("metrics", {})),
        )
        for entry in entries
    )


def _protocol_text(protocol: Any) -> str:
    if isinstance(protocol, Mapping):
        return ", ".join(f"{name} {value}" for name, value in protocol.items())
    return str(protocol or "")
