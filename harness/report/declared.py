"""The values that others published, as benchmark.yaml lists them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from harness.report.sections import Published

if TYPE_CHECKING:
    from harness.catalog.benchmarks import Benchmark


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
